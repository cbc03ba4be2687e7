"""How fast images are made, and whether the devices ever wait: counters for the log, the ledger and the page."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from genbench_jax.runtime.peak import Peak


@dataclasses.dataclass(frozen=True)
class Cost:
  """What some images have cost. Sums of costs are costs, so that restarts add up.

  Attributes:
    images: how many.
    seconds: from the first batch's start to the last one's end, compilation included.
    warm_images, warm_seconds: the same without the first batch, in which the program is compiled.
    waited_seconds: of the warm ones, those in which no batch was on the devices.
    chips: how many devices shared the work.
    flops_per_image: of the models, by XLA's cost analysis.
    peak_flops, peak_origin: of one chip in a second, and whether that is published or measured.
  """

  images: int = 0
  seconds: float = 0.0
  warm_images: int = 0
  warm_seconds: float = 0.0
  waited_seconds: float = 0.0
  chips: int = 1
  flops_per_image: float = 0.0
  peak_flops: float = 0.0
  peak_origin: str = ""

  def __add__(self, other: "Cost") -> "Cost":
    added = ("images", "seconds", "warm_images", "warm_seconds", "waited_seconds")
    sums = {name: getattr(self, name) + getattr(other, name) for name in added}
    return dataclasses.replace(other, **sums)

  @property
  def images_per_second(self) -> float:
    """Once warm, where there was more than one batch."""
    if self.warm_images:
      return self.warm_images / max(self.warm_seconds, 1e-9)
    return self.images / max(self.seconds, 1e-9)

  @property
  def images_per_second_per_chip(self) -> float:
    return self.images_per_second / self.chips

  @property
  def waiting_share(self) -> float:
    """Share of the warm time in which the devices had nothing to do."""
    return self.waited_seconds / max(self.warm_seconds, 1e-9)

  @property
  def utilization(self) -> float:
    """Model FLOPs over what the chips could have done; 0 where either is unknown."""
    if not self.peak_flops:
      return 0.0
    return self.images_per_second_per_chip * self.flops_per_image / self.peak_flops

  @property
  def chip_hours(self) -> float:
    return self.seconds * self.chips / 3600

  def as_json(self) -> dict[str, Any]:
    """The fields and what follows from them."""
    derived = (
      "images_per_second",
      "images_per_second_per_chip",
      "waiting_share",
      "utilization",
      "chip_hours",
    )
    return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}

  def __str__(self) -> str:
    if not self.images:
      return ""
    words = [f"{self.images_per_second_per_chip:.3g}/s a chip"]
    if self.warm_images:
      words.append(f"devices waited {self.waiting_share:.1%}")
    if self.utilization:
      peak = f"{self.peak_origin} peak of {self.peak_flops / 1e12:.3g} TFLOP/s"
      words.append(f"{self.utilization:.1%} of the {peak}")
    return ", ".join(words)


class Meter:
  """Watches batches on their way through the devices. Batches end in the order in which they start.

  Args:
    chips: devices that share every batch.
    flops_per_image: of the models; a function, since counting takes a second or two.
    peak: of one chip, likewise.
    clock: seconds.
  """

  def __init__(
    self,
    chips: int = 1,
    flops_per_image: Callable[[], float] = lambda: 0.0,
    peak: Callable[[], Peak] = lambda: Peak(0.0, ""),
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    self._chips, self._clock = chips, clock
    self._made: Callable[[int], None] = lambda images: None
    self._flops_per_image, self._peak = flops_per_image, peak
    self._known: dict[str, Any] = {}
    self._lock = threading.Lock()
    self._launched: deque[float] = deque()
    self._first_launch = self._first_end = self._last_end = 0.0
    self._first_images = self._images = 0
    self._waited = 0.0

  def tell(self, made: Callable[[int], None]) -> None:
    """Has another function told of the images of each batch that ends."""
    self._made = made

  def launched(self) -> None:
    """A batch has been given to the devices."""
    with self._lock:
      self._launched.append(self._clock())

  def ended(self, images: int) -> None:
    """The earliest batch under way has been computed."""
    with self._lock:
      now, launch = self._clock(), self._launched.popleft()
      if self._images:
        self._waited += max(0.0, launch - self._last_end)
      else:
        self._first_launch, self._first_end, self._first_images = launch, now, images
      self._images += images
      self._last_end = now
    self._made(images)

  def count_flops(self) -> None:
    """Counts the FLOPs and looks up the peak, once."""
    if not self._known:
      peak = self._peak()
      self._known = {"peak_flops": peak.flops, "peak_origin": peak.origin}
      self._known["flops_per_image"] = self._flops_per_image()

  def cost(self) -> Cost:
    """Of the batches that have ended."""
    with self._lock:
      return Cost(
        images=self._images,
        seconds=self._last_end - self._first_launch,
        warm_images=self._images - self._first_images,
        warm_seconds=self._last_end - self._first_end,
        waited_seconds=self._waited,
        chips=self._chips,
        **self._known,
      )
