"""Settings of fresh weights that are trained on a CPU, for some thousands of iterations at most: what `curate train
auto` picks for them in place of what long runs have.

An hour of a CPU is a minute of a GPU. What pays in long runs, many prototypes, changes of color, local crops, iBOT and
deep networks, costs such a run more than it teaches. Each line is a key, its value and the reason that is told; most
are what train/mnist5k has. The figures beside them are 10-NN of half of a set after 300 iterations on the other half,
each picture by the others of its half, with paired standard errors.
"""

from typing import Any

Lines = tuple[tuple[str, Any, str], ...]

OBJECTIVE = "dinov2"
"""Of 899 digits of scikit-learn the initialization tells 25.5 %; 49.0 % are told after DINOv2 with the settings below,
31.1 % after DIET, 25.7 % after SiT, and 22.9 to 26.6 % after LeJEPA at learning rates of 1.8e-4 and 7e-4."""
MODEL: Lines = (
    ("model.depth", 2, "a CPU, where more iterations teach more than more weights"),
    ("model.dim", 96, "half of ViT-Ti's: with 2 blocks an iteration takes a ninth of the time of 4 blocks of 192"),
)
CROPS: Lines = (
    ("crops.blur", "none", "of small crops it leaves little"),
    *(
        (f"crops.{name}", 0.0, "a short run, which changes of color cost more than they teach")
        for name in ("gray_probability", "solarize_probability", "hue", "saturation")
    ),
)
"""The gain of 950 emoji was 0.8 (+- 1.6) % with DINOv2's changes of color, 2.9 (+- 1.4) % with none; of 145 photographs
-10.3 (+- 3.6) and -0.7 (+- 4.2) %. Brightness and contrast still change: crops of digits would be told by their ink."""
MOST_PROTOTYPES = 64
"""As many as a batch has images, which must share them."""
HEADS: Lines = (
    ("objective.head_hidden", 512, "a short run on a CPU, as train/mnist5k"),
    ("objective.head_bottleneck", 64, "a short run on a CPU, as train/mnist5k"),
    ("objective.ibot_weight", 0.0, "a fifth of the time, and it teaches in long runs"),
    ("objective.koleo_weight", 1.0, "0.1 as in DINOv2 spreads features too slowly for a short run"),
    ("objective.teacher_temperature", [0.02, 0.02], "with few prototypes the teacher decides at once"),
)
