"""Throughput of image generation and idle time of devices, for the log, the ledger and the page."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from genbench_jax.runtime.peak import Peak


@dataclasses.dataclass(frozen=True)
class Cost:
  """Cost of generated images. Costs can be added, so restarts accumulate.

  Attributes:
    images: number of images.
    seconds: from the start of the first batch to the end of the last, including compilation.
    warm_images, warm_seconds: the same without the first batch, which compiles the program.
    waited_seconds: part of the warm time in which no batch was on the devices.
    chips: number of devices that shared the work.
    flops_per_image: FLOPs of the models by XLA's cost analysis.
    peak_flops, peak_origin: FLOP/s of one chip, and whether it is published or measured.
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
    """Rate without the first batch, if there was more than one."""
    if self.warm_images:
      return self.warm_images / max(self.warm_seconds, 1e-9)
    return self.images / max(self.seconds, 1e-9)

  @property
  def images_per_second_per_chip(self) -> float:
    return self.images_per_second / self.chips

  @property
  def waiting_share(self) -> float:
    """Fraction of the warm time in which the devices were idle."""
    return self.waited_seconds / max(self.warm_seconds, 1e-9)

  @property
  def utilization(self) -> float:
    """Model FLOPs divided by the chips' peak; 0 if either is unknown."""
    if not self.peak_flops:
      return 0.0
    return self.images_per_second_per_chip * self.flops_per_image / self.peak_flops

  @property
  def chip_hours(self) -> float:
    return self.seconds * self.chips / 3600

  def as_json(self) -> dict[str, Any]:
    """Return the fields and derived values."""
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
    words = [f"{self.images_per_second_per_chip:.3g}/s per chip"]
    if self.warm_images:
      words.append(f"devices idle {self.waiting_share:.1%}")
    if self.utilization:
      peak = f"{self.peak_origin} peak of {self.peak_flops / 1e12:.3g} TFLOP/s"
      words.append(f"{self.utilization:.1%} of the {peak}")
    return ", ".join(words)


class Meter:
  """Times batches on the devices. Batches end in the order in which they start.

  Args:
    chips: number of devices that share every batch.
    flops_per_image: function that returns the FLOPs of the models; it takes a second or two.
    peak: function that returns the peak of one chip.
    clock: function that returns seconds.
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
    """Call another function with the number of images of each completed batch."""
    self._made = made

  def launched(self) -> None:
    """Record that a batch was given to the devices."""
    with self._lock:
      self._launched.append(self._clock())

  def ended(self, images: int) -> None:
    """Record that the earliest pending batch is complete."""
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
    """Count the FLOPs and look up the peak, once."""
    if not self._known:
      peak = self._peak()
      self._known = {"peak_flops": peak.flops, "peak_origin": peak.origin}
      self._known["flops_per_image"] = self._flops_per_image()

  def cost(self) -> Cost:
    """Return the cost of the completed batches."""
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
