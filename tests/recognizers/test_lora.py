"""How low-rank updates are set up: shots, prompts, scale, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.recognizers import lora as module
from genbench_jax.recognizers.lora import lora, method
from genbench_jax.recognizers.settings import LoraSettings

PARAMS = {
  "logit_scale": np.float32(0.0),
  "vision_model": {"a": {"self_attn": {"q_proj": {"weight": np.zeros((4, 4), np.float32)}}}},
}  # fmt: skip


class Encoder:
  """An encoder that remembers its prompts, with one layer that has updates."""

  def __init__(self):
    self.asked, self.params = [], PARAMS
    self.input = SimpleNamespace(size=4, mean=(0.5,) * 3, std=(0.5,) * 3)

  def tokenize(self, prompts):
    self.asked.append(prompts)
    return np.zeros((len(prompts), 3), np.int32)


@pytest.mark.unchecked
def test_the_settings_template_takes_precedence_over_the_datasets():
  encoder = Encoder()
  for template in ("", "an {}"):
    made = method(
      LoraSettings(template=template, alpha=3.0, rank=2),
      encoder,
      ("ant", "bee"),
      "a {}.",
      4,
      2,
      True,
    )
  assert encoder.asked == [["a ant.", "a bee."], ["an ant", "an bee"]]
  logits = made.problem.logits
  assert (logits.scale, logits.dropout, logits.multi_label) == (1.5, 0.1, True)
  start = made.start(0)
  assert start.variables["vision_model.a.self_attn.q_proj"]["a"].shape == (4, 2)
  assert start.frozen["params"] is PARAMS and made.recipe == LoraSettings().recipe


@pytest.mark.unchecked
def test_the_reference_takes_its_steps_from_the_shots():
  made = method(LoraSettings(rank=9), Encoder(), ("ant", "bee"), "a {}.", 4, 2, False, "reference")
  assert made.recipe.min_steps == 2000 and made.problem.logits.scale == 0.5
  assert made.start(0).variables["vision_model.a.self_attn.q_proj"]["a"].shape == (4, 2)


@pytest.mark.unchecked
def test_names_fit_classes_and_the_encoder_has_layers():
  with pytest.raises(UsageError, match="there are 3 classes, but 2 class names"):
    method(LoraSettings(), Encoder(), ("ant", "bee"), "a {}.", 4, 3, False)
  with pytest.raises(UsageError, match="there are 0 classes"):
    method(LoraSettings(), Encoder(), (), "a {}.", 4, 0, False)
  with pytest.raises(UsageError, match=r"template of lora is 'a photo', expected a text with {}"):
    method(LoraSettings(), Encoder(), ("ant", "bee"), "a photo", 4, 2, False)
  with pytest.raises(UsageError, match=r"no layers for recognition\.lora"):
    method(LoraSettings(towers="text"), Encoder(), ("ant", "bee"), "a {}.", 4, 2, False)


@pytest.mark.unchecked
@pytest.mark.parametrize(
  ("images", "names", "shots"), [(6, 3, 2), (7, 3, 3), (2, 3, 1), (5, 1, 5), (0, 3, 0)]
)
def test_shots_are_images_per_class_rounded_up(images, names, shots, monkeypatch):
  seen = []
  monkeypatch.setattr(module, "fit_arrays", lambda make, *rest: seen.append((make.args, rest)))
  lora(np.zeros((images, 4, 4, 3), np.uint8), None, None, None, ["a"] * names, clip=Encoder())
  args, rest = seen[0]
  assert args[-1] == shots and args[3] == "a photo of a {}." and args[0] == LoraSettings()
  assert rest[4:8] == ("strict", 0, "accuracy", names)
