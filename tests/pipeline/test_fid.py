"""FID between folders with a small encoder: input, saved statistics, errors."""

import numpy as np
import pytest
from PIL import Image

import genbench_jax as gb
from genbench_jax.errors import RunError, UsageError
from genbench_jax.metrics.inception import fid_inception
from genbench_jax.pipeline.fid import fid_between_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp("images")
  rng = np.random.default_rng(0)
  for name, level in (("a", 200), ("b", 120)):
    for index in range(9):
      place = root / name / f"class{index % 2}"
      place.mkdir(parents=True, exist_ok=True)
      image = rng.integers(0, level, (20 + index, 30, 3), np.uint8)
      Image.fromarray(image).save(place / f"{index}.png")
  (root / "a" / ".thumbs").mkdir()
  Image.new("RGB", (9, 9)).save(root / "a" / ".thumbs" / "0.png")
  (root / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  return root


def test_two_folders(folders, tmp_path):
  found = fid_between_folders(
    folders / "a", folders / "b", "zoo/clip", save=tmp_path / "a.npz", batch_per_device=2
  )
  assert found.images == (9, 9) and found.resize == "crop"
  features = [
    gb.embed_images(sorted((folders / name).glob("class*/*.png")), "zoo/clip") for name in "ab"
  ]
  # Features vary in the last digits with the batch, and the distance is a difference.
  assert found.fid == pytest.approx(fid_inception(*features), rel=1e-3)
  assert found.kid is not None and found.kid.mean > 0
  again = fid_between_folders(folders / "b", tmp_path / "a.npz", "zoo/clip", batch_per_device=2)
  assert again.fid == pytest.approx(found.fid, rel=1e-4)
  assert again.kid is None and again.images == (9, 0)


def test_each_subfolder_has_a_distance_and_many_images_a_limit(folders, monkeypatch):
  from genbench_jax.metrics.class_distances import frechet_of_few

  monkeypatch.setattr("genbench_jax.pipeline.fid.SMALLEST", 100.0)
  monkeypatch.setattr("genbench_jax.pipeline.fid.fd_infinity", lambda x, y: float(len(x)))
  (folders / "b" / "other").mkdir(exist_ok=True)
  found = fid_between_folders(folders / "a", folders / "b", "zoo/clip")
  assert found.by_class.keys() == {"class0", "class1"}
  own, others = (
    gb.embed_images(sorted((folders / name / "class0").glob("*.png")), "zoo/clip") for name in "ab"
  )
  assert found.by_class["class0"] == pytest.approx(frechet_of_few(own, others), rel=1e-3)
  assert found.fd_infinity == 9  # 64 dimensions would need 257 images


def test_both_sides_are_opened_before_one_is_embedded(folders, tmp_path, capsys):
  np.savez(tmp_path / "wide.npz", mu=np.zeros(3), sigma=np.eye(3))
  for second in (tmp_path / "nothing", tmp_path / "wide.npz", folders / "a" / ".thumbs"):
    with pytest.raises(UsageError):
      fid_between_folders(folders / "a", second, "zoo/clip")
  assert "images in" not in capsys.readouterr().err


def test_other_inputs_are_rejected(folders, tmp_path):
  with pytest.raises(UsageError, match=r"is neither a folder of images nor an \.npz"):
    fid_between_folders(folders / "a", tmp_path / "nothing", "zoo/clip")
  with pytest.raises(UsageError, match="has 0 readable images"):
    fid_between_folders(folders / "a" / ".thumbs" / "..", tmp_path, "zoo/clip")
  with pytest.raises(UsageError, match="is a folder; name a file"):
    fid_between_folders(folders / "a", folders / "b", "zoo/clip", save=tmp_path)
  with pytest.raises(RunError, match=r"the weights of 'zoo/clip' have SHA-256 \w{64}, not 00ff"):
    fid_between_folders(folders / "a", folders / "b", "zoo/clip", sha256="00ff")
  with pytest.raises(UsageError, match="unknown resize method"):
    fid_between_folders(folders / "a", folders / "b", "zoo/clip", resize="clean")
  np.savez(tmp_path / "wide.npz", mu=np.zeros(3), sigma=np.eye(3))
  with pytest.raises(UsageError, match="has 3 features, but the encoder has 64"):
    fid_between_folders(folders / "a", tmp_path / "wide.npz", "zoo/clip")
