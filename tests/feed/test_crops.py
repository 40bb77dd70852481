import io

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from pydantic import ValidationError

from curate.feed.crops import augment, crop, decode_tensor, draw_box, make_crops, needed_side, resize
from curate.feed.settings import CropSettings
from curate.feed.sizes import Sides
from curate.ops.images.decode import RejectedImage
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.samples.bundled import PHOTOS

PLAIN = CropSettings(
    global_size=32,
    local_size=16,
    num_local=3,
    flip_probability=0,
    jitter_probability=0,
    gray_probability=0,
    solarize_probability=0,
    blur="none",
)


def picture(height=60, width=80):
    ramp = np.linspace(0, 255, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    ramp[:, :, 1] = np.linspace(0, 255, height)[:, None]
    ramp[:, :, 2] = 40
    return torch.from_numpy(ramp.astype(np.uint8)).permute(2, 0, 1)


def view(settings, *, seed=0, blur=0.0, solarize=0.0):
    return augment(picture(32, 32), settings, rng=np.random.default_rng(seed), blur=blur, solarize=solarize)


def test_shapes_and_dtype():
    large, small = make_crops(picture(), PLAIN, rng=np.random.default_rng(0))[:2]
    assert (large.shape, small.shape) == ((2, 3, 32, 32), (3, 3, 16, 16))
    assert large.dtype == small.dtype == torch.uint8


def test_no_local_crops_give_an_empty_group():
    _, small = make_crops(picture(), PLAIN.model_copy(update={"num_local": 0}), rng=np.random.default_rng(0))[:2]
    assert small.shape == (0, 3, 16, 16)


def test_one_seed_gives_one_set_of_crops():
    settings = CropSettings(global_size=32, local_size=16)
    first, second = (make_crops(picture(), settings, rng=np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_a_crop_of_the_whole_equals_torch_resize_and_is_near_pil():
    whole = PLAIN.model_copy(update={"aspect": (1.0, 1.0)})
    image = picture(64, 64)
    found = crop(image, 32, scale=(1.0, 1.0), settings=whole, rng=np.random.default_rng(0))
    reference = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BICUBIC)
    difference = found.permute(1, 2, 0).numpy().astype(int) - np.asarray(reference)
    assert np.abs(difference).max() <= 2


def test_flip_mirrors():
    flipped = PLAIN.model_copy(update={"flip_probability": 1.0})
    first, second = (
        crop(picture(), 32, scale=(0.5, 1.0), settings=s, rng=np.random.default_rng(1)) for s in (PLAIN, flipped)
    )
    assert torch.equal(first.flip(-1), second)


def test_nothing_switched_on_leaves_the_view_as_it_is():
    assert torch.equal(view(PLAIN), picture(32, 32))


def test_gray_makes_channels_equal():
    found = view(PLAIN.model_copy(update={"gray_probability": 1.0}))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_solarize_inverts_from_128_on():
    found, plain = view(PLAIN, solarize=1.0), picture(32, 32)
    assert torch.equal(found, torch.where(plain >= 128, 255 - plain, plain))


def test_blur_lowers_the_contrast_of_an_edge():
    settings = PLAIN.model_copy(update={"blur_sigma": (2.0, 2.0)})
    edge = torch.zeros(3, 32, 32, dtype=torch.uint8)
    edge[:, :, 16:] = 255
    found = augment(edge, settings, rng=np.random.default_rng(0), blur=1.0, solarize=0.0)
    assert found[0, 16].float().diff().abs().max() < 80


@pytest.mark.parametrize(
    ("name", "strength", "kept"),
    [("brightness", 0.4, "hue"), ("contrast", 0.4, "mean"), ("saturation", 0.4, "luma"), ("hue", 0.3, "value")],
)
def test_each_jitter_changes_its_own_quantity_only(name, strength, kept):
    off = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    settings = PLAIN.model_copy(update=off | {name: strength, "jitter_probability": 1.0})
    plain = picture(32, 32) // 2 + 30  # away from 0 and 255, so that nothing clips
    found = augment(plain, settings, rng=np.random.default_rng(3), blur=0.0, solarize=0.0)
    assert not torch.equal(found, plain)
    difference = _quantity(found, kept) - _quantity(plain, kept)
    assert np.abs(difference).max() <= 3


def _quantity(image, kept):
    pil = Image.fromarray(image.permute(1, 2, 0).numpy())
    if kept == "hue":  # ratios of channels, where bright enough to be measured
        x = np.asarray(pil).astype(float)
        return 100 * x[..., 0] / x.sum(axis=-1)
    if kept == "mean":
        return np.asarray(pil.convert("L")).mean(keepdims=True)
    if kept == "luma":
        return np.asarray(pil.convert("L")).astype(float)
    return np.asarray(pil.convert("HSV")).astype(float)[..., 2]


def photo(side, *, number=0):
    with Image.open(sorted(PHOTOS.rglob("*.jpg"))[number]) as image:
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def levels_apart(found, reference):
    """Mean difference in gray levels; torchvision's floats lie in 0..1."""
    scale = 255 if reference.is_floating_point() else 1
    return (found.float() - scale * reference).abs().mean().item()


def test_boxes_are_never_smaller_than_their_crops_at_the_needed_side():
    rng = np.random.default_rng(0)
    for settings in (
        CropSettings(),
        CropSettings(aspect=(0.9, 2.0)),
        CropSettings(num_local=0, global_size=98, global_scale=(0.1, 0.2)),
    ):
        side = needed_side(settings)
        kinds = [(settings.global_size, settings.global_scale), (settings.local_size, settings.local_scale)]
        for _ in range(500):
            height, width = rng.permutation([side, int(side * rng.uniform(1, 3))])
            for size, scale in kinds[: 2 if settings.num_local else 1]:
                _, _, h, w = draw_box(height, width, scale, settings.aspect, rng=rng)
                assert min(h, w) >= size


@pytest.mark.parametrize("number", [0, 90, 300])
def test_a_large_jpeg_is_decoded_smaller_and_gives_the_same_crops(number):
    data = encoded(Image.fromarray(photo(900, number=number).permute(1, 2, 0).numpy()), "JPEG", quality=90)
    settings = PLAIN.model_copy(update={"global_size": 128, "local_size": 64, "aspect": (1.0, 1.0)})
    full, reduced = decode_tensor(data), decode_tensor(data, min_side=needed_side(settings))
    assert (full.shape[1:], reduced.shape[1:]) == ((900, 900), (450, 450))
    for share in (1.0, 1 / 4):
        found, reference = (
            crop(image, 64, scale=(share, share), settings=settings, rng=np.random.default_rng(0))
            for image in (reduced, full)
        )
        assert levels_apart(found, reference) < 0.5


def test_an_image_without_spare_pixels_is_decoded_in_full():
    data = encoded(Image.fromarray(photo(600).permute(1, 2, 0).numpy()), "JPEG")
    assert decode_tensor(data, min_side=needed_side(CropSettings())).shape == (3, 600, 600)


def test_blur_presets_differ_by_view():
    both = {}
    for preset in ("released", "paper"):
        settings = PLAIN.model_copy(update={"blur": preset, "blur_sigma": (2.0, 2.0)})
        sharp = np.zeros(2)
        for seed in range(60):
            blurred, _ = make_crops(picture(), settings, rng=np.random.default_rng(seed))[:2]
            plain, _ = make_crops(picture(), PLAIN, rng=np.random.default_rng(seed))[:2]
            sharp += [torch.equal(blurred[i], plain[i]) for i in range(2)]
        both[preset] = sharp / 60
    assert both["released"][0] == 1
    assert both["released"][1] < 0.3
    assert both["paper"][0] == 0
    assert both["paper"][1] > 0.7


def encoded(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, format=form, **options)
    return data.getvalue()


def cmyk_jpeg_without_mark():
    """Pillow's CMYK JPEG without Adobe's mark, so that its values are not inverted."""
    data = encoded(Image.new("CMYK", (40, 40), (200, 30, 60, 0)), "JPEG")
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


RAMP = np.linspace(0, 1, 40 * 40).reshape(40, 40)
UNUSUAL = {
    "int32 TIFF": encoded(Image.fromarray((RAMP * 60_000).astype(np.int32)), "TIFF"),
    "float TIFF": encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "16 bit PNG": encoded(Image.fromarray((RAMP * 65_535).astype(np.uint16))),
    "CMYK TIFF": encoded(Image.new("CMYK", (40, 40), (200, 30, 60, 0)), "TIFF"),
    "CMYK JPEG": cmyk_jpeg_without_mark(),
    "palette": encoded(Image.fromarray((RAMP * 255).astype(np.uint8)).convert("P"), "GIF"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_the_trainer_sees_what_the_inspection_saw(name):
    seen = inspect_image(UNUSUAL[name], ImageLimits(min_luma_std=0, min_smoothness=-1)).picture
    np.testing.assert_array_equal(decode_tensor(UNUSUAL[name]).permute(1, 2, 0).numpy(), np.asarray(seen))


def test_postscript_never_reaches_its_interpreter(monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("started Ghostscript"))
    postscript = encoded(Image.new("RGB", (40, 40)), "EPS")
    Image.init()  # with every plugin loaded, as another library may have done
    with pytest.raises(RejectedImage, match="PostScript: not read; convert it to JPEG or PNG"):
        decode_tensor(postscript)


def test_decode_turns_by_exif():
    image = Image.new("RGB", (20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_tensor(encoded(image, "JPEG", exif=exif)).shape == (3, 20, 10)


def test_decode_puts_transparency_on_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_tensor(encoded(clear)) == 255).all()


def test_decode_scales_16_bits():
    deep = Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    assert (decode_tensor(encoded(deep)) == 0x80).all()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_decode_gives_three_channels(mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_tensor(encoded(Image.new(mode, (6, 5)), form)).shape == (3, 5, 6)


def test_swapped_scale_is_an_error():
    with pytest.raises(ValidationError, match=r"global_scale is \[1.0, 0.3\]; needed: 0 < first <= second"):
        CropSettings(global_scale=(1.0, 0.3))


def test_boxes_cover_the_asked_share_of_the_area_at_the_asked_aspect():
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(300, 400, (0.2, 0.5), (3 / 4, 4 / 3), rng=rng) for _ in range(500)])
    top, left, height, width = boxes.T
    area, aspect = height * width / (300 * 400), width / height
    assert ((area > 0.195) & (area < 0.505)).all()
    assert ((aspect > 0.74) & (aspect < 1.35)).all()
    assert ((top >= 0) & (left >= 0) & (top + height <= 300) & (left + width <= 400)).all()
    assert abs(area.mean() - 0.35) < 0.02


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1)])
def test_boxes_of_extreme_images_stay_inside_and_centered(height, width):
    top, left, h, w = draw_box(height, width, (1.0, 1.0), (3 / 4, 4 / 3), rng=np.random.default_rng(0))
    assert 0 < h <= height
    assert 0 < w <= width
    assert (top, left) == ((height - h) // 2, (width - w) // 2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3000), (3000, 1), (28, 28)])
def test_pictures_of_any_size_give_crops(height, width):
    """Curated pictures enter the shards whatever their size."""
    image = torch.full((3, height, width), 90, dtype=torch.uint8)
    large, small = make_crops(image, PLAIN, rng=np.random.default_rng(0))[:2]
    assert (large == 90).all()
    assert (small == 90).all()
    make_crops(image, CropSettings(global_size=32, local_size=16), rng=np.random.default_rng(0))


def test_the_gram_teachers_crop_is_the_students_box_larger_and_without_colors():
    """Without distortions the student's crop is the larger one, reduced."""
    sides = Sides(24, 16, 48)
    plain = make_crops(picture(), PLAIN, rng=np.random.default_rng(3), sides=sides)
    assert plain.gram is not None
    assert plain.gram.shape == (2, 3, 48, 48)
    for small, large in zip(plain.global_crops, plain.gram, strict=True):
        assert torch.equal(small, resize(large, 24))
    colored = make_crops(picture(), CropSettings(), rng=np.random.default_rng(3), sides=sides)
    again = make_crops(picture(), CropSettings(jitter_probability=0.0), rng=np.random.default_rng(3), sides=sides)
    assert colored.gram is not None
    assert again.gram is not None
    assert torch.equal(colored.gram, again.gram)
    assert not torch.equal(colored.global_crops, again.global_crops)


def test_sides_of_a_batch_change_nothing_but_the_sides():
    """The same boxes: crops of one image at two sizes are each other, resized."""
    small = make_crops(picture(), PLAIN, rng=np.random.default_rng(5), sides=Sides(24, 16))
    large = make_crops(picture(), PLAIN, rng=np.random.default_rng(5), sides=Sides(48, 16))
    assert torch.equal(small.local_crops, large.local_crops)
    difference = (resize(large.global_crops[0], 24).float() - small.global_crops[0].float()).abs().mean()
    assert difference < 4
