"""Random changes of training crops. Everything is drawn from the Generator that is given.

recipe           what is changed, how often, in which order; how much larger the crop must be that is read
profiles         the published numbers for a voxel size: for training, for validation, for isotropic volumes
greyscale        contrast, brightness, gamma
misalignment     translation of all later sections, slip of one
missing_section  sections that are one grey
occlusion        boxes of one grey
out_of_focus     blurred sections
warp             rotation, shear, scale, perspective
noise            Gaussian noise
flip             mirrored axes, exchanged axes
sections         which sections are changed, whole or in quadrants
plain            the smaller recipe that the shipped weights were trained with
alone            every change of a recipe by itself, for pictures

Images are float32 in [0, 1]. Each change is a frozen dataclass of its numbers and a function that makes it.
"""
