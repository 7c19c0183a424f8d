import numpy as np

from models.augmentation.missing_section import MissingSection, lose_sections

SHAPE = (20, 12, 14)


def test_one_to_k_sections_lose_whole_quadrants():
    image = np.random.default_rng(1).random(SHAPE, np.float32)
    counts, whole, parts, blacks = set(), 0, 0, 0
    for seed in range(200):
        changed = image.copy()
        lose_sections(changed, MissingSection(), np.random.default_rng(seed))
        lost = changed != image
        sections = np.flatnonzero(lost.any(axis=(1, 2)))
        counts.add(len(sections))
        for z in sections:
            whole += bool(lost[z].all())
            parts += not lost[z].all()
            blacks += bool((changed[z] == 0).any())
            assert len(np.unique(changed[z][lost[z]])) <= 4
    assert counts == {1, 2, 3, 4, 5}
    assert min(whole, parts, blacks) > 100


def test_the_generator_decides():
    def lost(seed: int) -> bytes:
        image = np.ones(SHAPE, np.float32)
        lose_sections(image, MissingSection(), np.random.default_rng(seed))
        return image.tobytes()

    assert lost(4) == lost(4)
    assert lost(4) != lost(5)
