"""The registry of networks: which family a name belongs to.

A family registers itself where it is defined; nothing here knows any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import ModelError, UnknownModelError, function_suggestion, nearest

if TYPE_CHECKING:
    from torch import nn

# A kernel of 32 · width in- and output channels (a gate of the last stage of bottlenecks) has fewer
# than 2⁶³ bytes below it; torch raises an error of its own beyond.
MOST = 2**25
Options = Mapping[str, Any]
Canonical = tuple[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A group of networks, and what is known of them without building one.

    Attributes:
        name: `imagenet`, `cifar`, … for people.
        source: the paper's section, table or figure, or the library.
        names: the listed networks; others may exist (CIFAR networks of any depth).
        channels: channels of the input that a bare name stands for.
        size: side in pixels of that square input.
        classes: number of classes that a bare name stands for.
    """

    name: str
    source: str
    names: tuple[str, ...] = ()
    channels: int = 3
    size: int = 224
    classes: int = 1000

    @abstractmethod
    def canonical(self, name: str, options: Options) -> Canonical | None:
        """Return the network's one spelling, None if the name is not of this family.

        Raises:
            ModelError: an option is unknown, or the combination cannot be built.
        """

    def channels_of(self, network: Canonical) -> int:  # noqa: ARG002 - others look at it
        """Return the channels of the images that a canonical network is made for."""
        return self.channels

    def size_of(self, network: Canonical) -> int:  # noqa: ARG002 - others look at it
        """Return the side in pixels that a canonical network is made for."""
        return self.size

    @abstractmethod
    def build(self, network: Canonical, classes: int | None, channels: int | None) -> nn.Module:
        """Build what `canonical` returned; None stands for the family's own number."""


_families: list[Family] = []


def register(family: Family) -> None:
    """Register a family; raise `ModelError` if its name or one of its networks' is taken."""
    taken = {name: other.name for other in _families for name in (other.name, *other.names)}
    for position, name in enumerate(family.names):
        if name in taken or name in family.names[:position]:
            owner = taken.get(name, family.name)
            raise ModelError(f"the model '{name}' is already registered, by the family '{owner}'")
    if family.name in taken:
        raise ModelError(f"the family '{family.name}' is already registered")
    _families.append(family)


def list_models() -> list[str]:
    """Return the names of all listed networks, in the order of their families.

    Not listed, but built as well: CIFAR networks of other depths (`resnet14`), plain and
    pre-activation forms of any of them, `timm:NAME`, `torchvision:NAME` and the user's
    `package.module:function`.
    """
    return [name for family in _families for name in family.names]


def model_family(name: str, options: Options | None = None) -> Family:
    """Return the family of a network, which may depend on options (`resnet83`: bottlenecks only).

    Raises:
        ModelError: no family knows the name, or not with these options.
    """
    return _resolve(name, options or {})[0]


def default_shape(name: str, options: Options | None = None) -> tuple[int, int, int]:
    """Return (channels, size in pixels, classes) that a name stands for.

    3, 224, 1000 for the ImageNet family, `plain_cnn` and networks from elsewhere (those of
    timm and torchvision at their own size, the user's with the channels that an option or the
    function's default says); 3, 32, 10 for the CIFAR family; 1, 96, 10 for `d2l_resnet18`.

    Raises:
        ModelError: no family knows the name, or not with these options.
    """
    family, network = _resolve(name, options or {})
    return family.channels_of(network), family.size_of(network), family.classes


def canonical(name: str, options: Options | None = None) -> Canonical:
    """Return the one spelling of a network: equal networks give equal results.

    Builds nothing. `plain18` becomes `("resnet18", {"shortcut": "none"})`, and options
    that only repeat a default are left out. Names of other libraries and of the user
    come back as they are, since only building them can tell what their options mean.

    Raises:
        ModelError: the name or an option is unknown, or the combination cannot be built.
    """
    return _resolve(name, options or {})[1]


def build_model(
    name: str, /, *, num_classes: int | None = None, in_channels: int | None = None, **options: Any
) -> nn.Module:
    """Build a network that maps (batch, channels, height, width) to (batch, classes).

    Args:
        name: one of `list_models()`, or another name described there.
        num_classes: None is the family's own (`default_shape`).
        in_channels: None is the family's own.
        options: the family's options, such as `shortcut` or `width`; a user's function may have
            one called `name`.

    Returns:
        The network in training mode, on the CPU, with freshly drawn weights.

    Raises:
        ModelError: the name or an option is unknown, or the combination cannot be built.

    Example:
        >>> model = build_model("resnet20", num_classes=10, shortcut="none")
        >>> sum(p.numel() for p in model.parameters())
        269722
    """
    for what, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is not None:
            check_count(what, value)
    family, network = _resolve(name, options)
    return family.build(network, num_classes, in_channels)


def check_count(what: str, value: object) -> int:
    """Return *value*, or raise `ModelError` if it is no whole number from 1 to below `MOST`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < MOST:
        raise ModelError(
            f"{what}={value!r} must be a whole number of at least 1 and below {MOST:,}"
        )
    return value


def check_options(name: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ModelError` if one of *options* is not among those *known*."""
    known = list(known)
    for option in options:
        if option not in known:
            listed = ", ".join(known) or "none"
            raise ModelError(
                f"{name} has no option '{option}'{nearest(option, known)} (options: {listed})"
            )


@dataclass(frozen=True, kw_only=True)
class SingleFamily(Family):
    """A family of one network, which bears the family's name.

    Attributes:
        builder: called with `num_classes`, `in_channels` and all options.
        counts: its options, all whole numbers of at least one, with their defaults.
    """

    builder: Callable[..., nn.Module]
    counts: Mapping[str, int] = field(default_factory=dict)

    def canonical(self, name: str, options: Options) -> Canonical | None:
        """Check the options and leave out those that repeat a default."""
        if name != self.name:
            return None
        check_options(name, options, self.counts)
        given = {key: check_count(key, value) for key, value in sorted(options.items())}
        return name, {key: value for key, value in given.items() if value != self.counts[key]}

    def build(self, network: Canonical, classes: int | None, channels: int | None) -> nn.Module:
        """Call the builder."""
        return self.builder(
            num_classes=classes or self.classes,
            in_channels=channels or self.channels,
            **{**self.counts, **network[1]},
        )


def _resolve(name: str, options: Options) -> tuple[Family, Canonical]:
    for family in _families:
        found = family.canonical(name, options)
        if found is not None:
            return family, found
    hint = function_suggestion(name) or nearest(name, list_models())
    raise UnknownModelError(
        f"unknown model '{name}'{hint} (`bench list models` lists them; "
        "timm:NAME, torchvision:NAME and package.module:function work too)"
    )
