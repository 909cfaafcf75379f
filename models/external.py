"""Networks of other packages: `timm:NAME`, `torchvision:NAME`, `package.module:function`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LazyError, ModelError, function_suggestion, nearest, one_line, reraise_ours
from .registry import Canonical, Family, Options, check_options, register

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import nn

_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_REFERENCE = re.compile(rf"{_DOTTED}:{_DOTTED}")
_LIBRARIES = ("timm", "torchvision")
Colours = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation by channel


@dataclass(frozen=True, kw_only=True)
class LibraryFamily(Family):
    """The networks of an optional library, as `library:NAME`.

    Attributes:
        create: library's module, network's name, number of classes and input channels
            (None for the network's own), options → network.
        known: library's module → names, to suggest one.
        trained_size: library's module, network's name, options → side in pixels of the images that
            its published weights take; None if there are none.
        trained_colours: library's module, network's name, options → mean and standard deviation of
            each channel that its published weights are normalised with.
    """

    create: Callable[[Any, str, int | None, int | None, Options], object]
    known: Callable[[Any], list[str]]
    trained_size: Callable[[Any, str, Options], int | None]
    trained_colours: Callable[[Any, str, Options], Colours]

    def channels_of(self, network: Canonical) -> int:
        """Return the option `in_chans` (timm's) or `in_channels`, or three."""
        given = network[1].get("in_chans", network[1].get("in_channels"))
        return given if isinstance(given, int) else self.channels

    def size_of(self, network: Canonical) -> int:
        """Return the side of the option `img_size` or `image_size`, or the library's own."""
        name, options = network
        for option in ("img_size", "image_size"):
            if isinstance(options.get(option), int):
                return int(options[option])
        with contextlib.suppress(Exception):  # without the library or the name, building says so
            found = self.trained_size(self._import(), name.partition(":")[2], options)
            return found or self.size
        return self.size

    def colours_of(self, name: str, options: Options) -> Colours | None:
        """Return the normalisation of the library's own weights."""
        with contextlib.suppress(Exception):  # as `size_of`
            return self.trained_colours(self._import(), name.partition(":")[2], options)
        return None

    def canonical(self, name: str, options: Options) -> Canonical | None:
        """Return name and options as they are: only the library knows what they mean."""
        library, _, network = name.partition(":")
        if library != self.name:
            return None
        if not network:
            raise ModelError(f"'{name}' names no model; write {library}:NAME")
        return name, dict(options)

    def build(self, network: Canonical, classes: int | None, channels: int | None) -> nn.Module:
        """Build the network with random weights, unless an option asks for others.

        Raises:
            ModelError: the library is missing, or refuses.
        """
        (name, options), library = network, self._import()
        own = name.partition(":")[2]
        known = self.known(library)
        if own.partition(".")[0] not in known:  # timm writes NAME.WEIGHTS
            raise ModelError(f"{self.name} has no model '{own}'{nearest(own, known)}")
        try:
            model = self.create(library, own, classes, channels, options)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"{name} cannot be built: {one_line(error)}") from error
        return _checked(name, model)

    def _import(self) -> ModuleType:
        try:
            return importlib.import_module(self.name)
        except ImportError as error:
            raise ModelError(
                f"'{self.name}:…' needs {self.name}, which cannot be imported "
                f"({one_line(error)}): pip install {self.name} (the extra '{self.name}')"
            ) from error


def _create_timm(
    timm: Any, name: str, classes: int | None, channels: int | None, options: Options
) -> object:
    numbers = {"num_classes": classes, "in_chans": channels}
    given = {key: value for key, value in numbers.items() if value is not None}
    return timm.create_model(name, **{"pretrained": False, **given, **options})


def _timm_size(timm: Any, name: str, _options: Options) -> int | None:
    config = timm.get_pretrained_cfg(name)
    return None if config is None else int(config.input_size[-1])


def _timm_colours(timm: Any, name: str, _options: Options) -> Colours:
    config = timm.get_pretrained_cfg(name)
    return tuple(config.mean), tuple(config.std)


def _torchvision_weights(torchvision: Any, name: str, options: Options) -> Any:
    """Return the published weights that an option names, or the default ones."""
    published = torchvision.models.get_model_weights(name)
    given = str(options.get("weights") or "DEFAULT")
    return published[given.removeprefix(f"{published.__name__}.")]


def _torchvision_colours(torchvision: Any, name: str, options: Options) -> Colours:
    transforms = _torchvision_weights(torchvision, name, options).transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def _torchvision_size(torchvision: Any, name: str, options: Options) -> int | None:
    weights = _torchvision_weights(torchvision, name, options)
    size = getattr(weights.transforms, "keywords", {}).get("crop_size")
    # A network that takes one size only gets that of its weights with them, 224 without.
    fixed = weights.meta.get("min_size") == (size, size) and not options.get("weights")
    return size if isinstance(size, int) and not fixed else None


def _create_torchvision(
    torchvision: Any, name: str, classes: int | None, channels: int | None, options: Options
) -> object:
    given = {} if classes is None else {"num_classes": classes}
    model = torchvision.models.get_model(name, **{"weights": None, **given, **options})
    if channels not in {None, 3}:
        _adapt_first_convolution(name, model, channels)
    return model


def _adapt_first_convolution(name: str, model: nn.Module, in_channels: int) -> None:
    """Change the number of channels of a network of three-channel images.

    torchvision has no argument for it. The colour filters are repeated in turn and scaled so that
    the response to grey keeps its size; for one channel they are summed, so that the output for a
    grey image is that for its RGB copy.
    """
    import torch
    from torch import nn

    convolutions = ((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    path, module = next(convolutions, ("", None))
    if module is None or module.in_channels != 3 or module.groups != 1:  # noqa: PLR2004 - colours
        raise ModelError(
            f"torchvision:{name} does not begin with a convolution of three channels; "
            f"in_channels={in_channels} is not possible; use 3"
        )
    with torch.no_grad():
        if in_channels == 1:
            weight = module.weight.sum(dim=1, keepdim=True)
        else:
            turns = torch.arange(in_channels) % 3
            weight = module.weight[:, turns] * (3 / in_channels)
    adapted = nn.Conv2d(
        in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]  # a Conv2d's are pairs
        stride=module.stride,  # type: ignore[arg-type]
        padding=module.padding,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
    )
    adapted.weight = nn.Parameter(weight)
    adapted.bias = module.bias
    model.set_submodule(path, adapted)


@dataclass(frozen=True, kw_only=True)
class UserFamily(Family):
    """The user's own: `package.module:function`, called with what it accepts."""

    def canonical(self, name: str, options: Options) -> Canonical | None:
        """Return name and options as they are: only the function knows what they mean."""
        prefix, colon, _ = name.partition(":")
        if not colon or prefix in _LIBRARIES:
            return None
        if not _REFERENCE.fullmatch(name):
            raise ModelError(f"'{name}' is no package.module:function{function_suggestion(name)}")
        return name, dict(options)

    def channels_of(self, network: Canonical) -> int:
        """Return the option `in_channels`, or the function's default for it, or three."""
        name, options = network
        given = options.get("in_channels")
        if given is None:
            with contextlib.suppress(Exception):  # building says what is wrong with the function
                given = inspect.signature(find_function(name)).parameters["in_channels"].default
        return given if isinstance(given, int) else self.channels

    def build(self, network: Canonical, classes: int | None, channels: int | None) -> nn.Module:
        """Import the module and call the function.

        The numbers of classes and channels are passed if the function takes them; None (no
        number requested) only if it has no default of its own, as 1000 and 3.

        Raises:
            ModelError: module or function is missing or raises, an option is not taken,
                or what comes back is no `torch.nn.Module`.
        """
        name, options = network
        function = find_function(name)
        numbers = {"num_classes": (classes, self.classes), "in_channels": (channels, self.channels)}
        arguments = _arguments(name, function, options, numbers)
        try:
            with warnings.catch_warnings():  # an option of 0 is refused, or meant
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")
                model = function(**arguments)
        except (Exception, SystemExit) as error:
            reraise_ours(error)
            raise ModelError(f"{name} raised {one_line(error)}") from error
        return _checked(name, model)


def find_function(name: str) -> Callable[..., object]:
    """Import the user's `package.module:function`, also from the current folder.

    Raises:
        ModelError: module or function is missing, or importing the module raises.
    """
    module_name, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # Behind everything installed, so that a user's folder called like a library (or
        # like a room of this project) shadows nothing.
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(
                f"{name}: no module '{error.name}' in {here} or among the installed packages"
                + (
                    function_suggestion(name)
                    or "; run from the folder that holds it, or install it"
                )
            ) from error
        raise ModelError(f"{name}: importing it raised {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # a script without a guard ends with sys.exit
        reraise_ours(error)
        raise ModelError(f"{name}: importing it raised {one_line(error)}") from error
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            origin = getattr(module, "__file__", None) or "a namespace package"
            raise ModelError(
                f"{name}: no '{part}' in {module_name} ({origin}){nearest(part, vars(module))}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"{name} is {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]  # checked to be callable


def _arguments(
    name: str,
    function: Callable[..., object],
    options: Options,
    numbers: dict[str, tuple[int | None, int]],
) -> dict[str, Any]:
    """Return the arguments for a user's function: options and, of *numbers*, those it takes.

    A number that was not requested is passed as its default where the function has none.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # Python cannot tell
        return dict(options)
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if not takes_any:
        check_options(name, options, parameters)
    taken: dict[str, Any] = {}
    for key, (requested, default) in numbers.items():
        own = parameters.get(key)
        if requested is not None and (own is not None or takes_any):
            taken[key] = requested
        elif requested is None and own is not None and own.default is inspect.Parameter.empty:
            taken[key] = default
    return {**taken, **options}


def _checked(name: str, model: object) -> nn.Module:
    """Return a network without expanded tensors, or wrappers of `torch.compile` and parallelism.

    Raises:
        ModelError: it is no module, a scripted one, or has weights of another type than float32.
    """
    import torch
    from torch import nn
    from torch.nn.parameter import is_lazy

    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    model = _unwrapped(model)
    for path, part in list(model.named_modules()):
        inner = _unwrapped(part)
        if inner is not part:
            model.set_submodule(path, inner)
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise ModelError(
            f"{name} returned a scripted network, which can be neither trained in another layout "
            "nor exported; return it as it is before torch.jit.script or torch.jit.trace"
        )
    for path, weight in model.named_parameters():
        if weight.is_floating_point() and weight.dtype is not torch.float32:
            raise ModelError(
                f"{name} returned a network whose weights are {str(weight.dtype)[6:]} ('{path}'); "
                "return it in float32, as after .float(): --precision chooses the arithmetic"
            )
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        # Elements of an expanded tensor share memory, so that no values can be loaded into it.
        if not is_lazy(tensor) and tensor.layout is torch.strided and 0 in tensor.stride():
            tensor.data = tensor.data.contiguous()
    return model


def _unwrapped(module: nn.Module) -> nn.Module:
    from torch import nn

    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):  # torch.compile's
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def materialise(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """Give lazy modules their parameters, by an image of this shape; return the network.

    Raises:
        LazyError: the network cannot take it.
    """
    import torch
    from torch.nn.parameter import is_lazy

    tensors = itertools.chain(model.parameters(), model.buffers())
    if not any(is_lazy(tensor) for tensor in tensors):
        return model
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *input_shape))
    except Exception as error:
        shape = "×".join(map(str, input_shape))
        raise LazyError(
            f"its lazy layers cannot be given shapes by an input of {shape}: {one_line(error)}"
        ) from error
    return model.train(training)


register(
    LibraryFamily(
        name="timm",
        source="huggingface/pytorch-image-models",
        create=_create_timm,
        known=lambda timm: list(timm.list_models()),
        trained_size=_timm_size,
        trained_colours=_timm_colours,
    )
)
register(
    LibraryFamily(
        name="torchvision",
        source="pytorch/vision",
        create=_create_torchvision,
        # Without the argument, detection, segmentation and video networks come along.
        known=lambda torchvision: list(torchvision.models.list_models(torchvision.models)),
        trained_size=_torchvision_size,
        trained_colours=_torchvision_colours,
    )
)
register(UserFamily(name="user", source="the user's package.module:function"))
