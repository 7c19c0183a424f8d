import numpy as np

from models.augmentation.components import split


def test_parts_of_one_label_are_told_apart():
    labels = np.zeros((3, 5, 7), np.uint64)
    labels[0, 0, :2] = 1 << 60
    labels[2, 4, 4:] = 1 << 60
    labels[1, 1, 2] = 1 << 60  # touches the first by a corner
    labels[0, 3:, :] = 9
    parts, label_of_part = split(labels)
    assert len(label_of_part) == 4
    np.testing.assert_array_equal(label_of_part[parts], labels)
    assert parts[0, 0, 0] == parts[1, 1, 2] != parts[2, 4, 4]
    assert label_of_part[0] == 0


def test_a_crop_of_background_and_one_without_any():
    parts, label_of_part = split(np.zeros((2, 3, 3), np.uint16))
    assert parts.max() == 0
    assert label_of_part.tolist() == [0]
    parts, label_of_part = split(np.full((2, 3, 3), 7, np.uint16))
    assert (parts == 1).all()
    assert label_of_part.tolist() == [0, 7]
