"""PDQ and its dihedral variants against the pdqhash package and Pillow."""

from importlib import resources

import numpy as np
import pdqhash
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from curate.ops.images.hashes import DIHEDRAL, HASH_BYTES, bits_to_cosine, dihedral, pdq
from curate.ops.vectors import VectorSpec, to_float32


def photos():
    folder = resources.files("curate").joinpath("samples/photos/birds")
    return [Image.open(file.open("rb")).convert("RGB") for file in sorted(folder.iterdir(), key=lambda f: f.name)]


def hamming(left, right):
    """Bits that differ; the axes before the last one broadcast."""
    return np.unpackbits(left ^ right, axis=-1).sum(axis=-1, dtype=np.int64)


PHOTOS = photos()


def rows(pictures):
    return np.array([np.frombuffer(pdq(picture)[0], np.uint8) for picture in pictures])


HASHES = rows(PHOTOS)


def test_hash_is_pdq_of_the_thumbnail():
    for picture, packed in zip(PHOTOS, HASHES, strict=True):
        small = picture.resize((64, 64), Image.Resampling.BILINEAR)
        bits, quality = pdqhash.compute(np.asarray(small))
        np.testing.assert_array_equal(np.unpackbits(packed), bits)
        assert pdq(picture) == (packed.tobytes(), quality)


def test_hash_is_near_pdqs_own_of_the_full_picture():
    own = np.array([np.packbits(pdqhash.compute(np.asarray(p.resize((512, 512))))[0]) for p in PHOTOS])
    assert hamming(HASHES, own).mean() < 20  # a match is 31 or less


@pytest.mark.parametrize("variant", DIHEDRAL[1:])
def test_variant_is_near_the_hash_of_the_transposed_picture(variant):
    turned = rows([picture.transpose(Image.Transpose[variant.upper()]) for picture in PHOTOS])
    distances = hamming(turned[:, None], dihedral(HASHES))  # (N, 8)
    assert (distances.argmin(axis=1) == DIHEDRAL.index(variant)).all()
    assert distances.min(axis=1).max() <= 24
    assert distances.min(axis=1).mean() < 8


def test_variants_match_those_pdqhash_computes_from_pixels():
    for picture, packed in zip(PHOTOS, HASHES, strict=True):
        computed, _ = pdqhash.compute_dihedral(np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR)))
        nearest = hamming(np.packbits(computed, axis=1)[:, None], dihedral(packed[None])[0])  # (8, 8)
        assert sorted(nearest.argmin(axis=1)) == list(range(8))
        assert nearest.min(axis=1).max() <= 24


@given(hnp.arrays(np.uint8, st.tuples(st.integers(0, 5), st.just(HASH_BYTES))))
def test_variants_form_the_dihedral_group(hashes):
    variants = dihedral(hashes)
    assert variants.shape == (len(hashes), 8, HASH_BYTES)
    np.testing.assert_array_equal(variants[:, 0], hashes)
    orbit = [set(map(bytes, row)) for row in variants]
    for k in range(8):  # variants of a variant are the same eight
        assert [set(map(bytes, row)) for row in dihedral(variants[:, k])] == orbit
    index = {name: k for k, name in enumerate(DIHEDRAL)}
    back = dihedral(variants[:, index["rotate_90"]])[:, index["rotate_270"]]
    np.testing.assert_array_equal(back, hashes)


def test_hash_survives_rescaling_and_recompression_but_tells_pictures_apart():
    smaller = rows([p.resize((p.width * 45 // 100, p.height * 45 // 100)) for p in PHOTOS])
    assert hamming(HASHES, smaller).max() <= 16
    apart = hamming(HASHES[:, None], HASHES)[np.triu_indices(len(PHOTOS), 1)]
    assert apart.min() > 60


@given(hnp.arrays(np.uint8, (2, HASH_BYTES)))
def test_cosine_of_a_distance_is_that_of_sign_vectors(pair):
    signs = to_float32(pair, VectorSpec("bits", 256, "pdq", ""))
    assert bits_to_cosine(int(hamming(pair[0], pair[1]))) == pytest.approx(float(signs[0] @ signs[1]), abs=1e-6)


def test_flat_picture_has_quality_zero():
    assert pdq(Image.new("RGB", (80, 80), "gray"))[1] == 0
