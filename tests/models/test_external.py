"""Networks from timm, from torchvision, and from the user's own folder."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from bench.models import ModelError, build_model, materialise

USERS_MODULE = """
    from torch import nn

    NUMBER = 3

    def make(num_classes=5, in_channels=3, width=4):
        return nn.Sequential(
            nn.Conv2d(in_channels, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, num_classes),
        )

    def only_classes(num_classes):
        return nn.Linear(2, num_classes)

    def anything(**options):
        layer = nn.Identity()
        layer.options = options
        return layer

    class Network(nn.Linear):
        def __init__(self, num_classes):
            super().__init__(4, num_classes)

    def wrong():
        return "no network"

    def fails():
        raise RuntimeError("out of ideas\\nand of lines")

    def silent():
        raise NotImplementedError
"""


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    (tmp_path / "users_networks.py").write_text(textwrap.dedent(USERS_MODULE))
    (tmp_path / "broken_networks.py").write_text("def make(:\n")
    (tmp_path / "needy_networks.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "users_networks", raising=False)
    return tmp_path


@pytest.mark.usefixtures("users_folder")
class TestUsersFunction:
    def test_gets_what_was_asked_for(self):
        model = build_model("users_networks:make", num_classes=7, in_channels=1, width=2)
        assert model(torch.randn(2, 1, 8, 8)).shape == (2, 7)

    def test_keeps_its_own_defaults(self):
        assert build_model("users_networks:make")(torch.randn(2, 3, 8, 8)).shape == (2, 5)

    def test_gets_only_the_numbers_it_takes(self):
        model = build_model("users_networks:only_classes", num_classes=7, in_channels=1)
        assert isinstance(model, nn.Linear)
        assert model.out_features == 7

    def test_gets_a_number_that_it_requires(self):
        assert build_model("users_networks:only_classes").out_features == 1000

    def test_gets_everything_if_it_takes_everything(self):
        model = build_model("users_networks:anything", num_classes=7, in_channels=1, depth=3)
        assert model.options == {"num_classes": 7, "in_channels": 1, "depth": 3}

    def test_may_be_a_class(self):
        assert build_model("users_networks:Network", num_classes=7).out_features == 7

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("no_such_module:make", {}, "no module 'no_such_module' in "),
            ("users_networks.inner:make", {}, "no module 'users_networks.inner' in "),
            ("users_networks:mak", {}, r"users_networks\.py\); did you mean 'make'"),
            ("users_networks:NUMBER", {}, "is int, not a function"),
            ("users_networks:make", {"widht": 1}, "no option 'widht'; did you mean 'width'"),
            ("users_networks:wrong", {}, "returned str, not a torch.nn.Module"),
            ("users_networks:fails", {}, "raised RuntimeError: out of ideas$"),
            ("users_networks:silent", {}, "raised NotImplementedError$"),
            ("broken_networks:make", {}, "importing it raised SyntaxError"),
            ("needy_networks:make", {}, "importing it raised .*no_such_library"),
            ("users_networks:", {}, "is no package.module:function"),
            (":make", {}, "is no package.module:function"),
            ("C:/models/net.py", {}, "is no package.module:function"),
        ],
    )
    def test_errors_say_what_is_wrong(self, name, options, message):
        with pytest.raises(ModelError, match=message) as refusal:
            build_model(name, **options)
        assert "\n" not in str(refusal.value)


def test_an_option_of_zero_gets_no_warning_of_pytorch(tmp_path, monkeypatch, recwarn):
    (tmp_path / "narrow_networks.py").write_text(
        "from torch import nn\ndef make(width=4):\n    return nn.Linear(width, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert build_model("narrow_networks:make", width=0).in_features == 0
    assert [str(warning.message) for warning in recwarn] == []


def test_users_package_may_be_called_models(tmp_path):
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tiny.py").write_text(textwrap.dedent(USERS_MODULE))
    # A user's file that is called like a library must not replace it.
    (tmp_path / "torchvision.py").write_text("raise ImportError('the wrong torchvision')")
    (tmp_path / "run.py").write_text("")
    program = """
        import sys
        sys.path.remove("")  # as when started by an installed command
        from bench.models import build_model
        print(build_model("models.tiny:make", num_classes=7)[-1].out_features)
        print(type(build_model("torchvision:resnet18")).__module__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["7", "torchvision.models.resnet"], done.stderr


class TestLibraries:
    def test_timm(self):
        model = build_model("timm:resnet10t", num_classes=7, in_channels=1).eval()
        assert model(torch.randn(1, 1, 32, 32)).shape == (1, 7)

    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
    def test_torchvision_answers_to_grey_as_to_its_rgb_copy(self, name):
        outputs = []
        grey = torch.rand(1, 1, 64, 64)
        for channels in (1, 3):
            torch.manual_seed(0)
            model = build_model(f"torchvision:{name}", num_classes=7, in_channels=channels).eval()
            with torch.no_grad():
                outputs.append(model(grey.expand(-1, channels, -1, -1)))
        assert outputs[0].shape == (1, 7)
        assert torch.allclose(*outputs, rtol=1e-3, atol=1e-5)

    def test_torchvision_takes_other_channels(self):
        model = build_model("torchvision:resnet18", num_classes=7, in_channels=5)
        assert model(torch.randn(2, 5, 32, 32)).shape == (2, 7)

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("timm:resnet18x", {}, "timm has no model 'resnet18x'; did you mean 'resnet18'"),
            ("timm:", {}, "names no model; write timm:NAME"),
            ("timm:resnet10t", {"no_such": 1}, "cannot be built: TypeError"),
            ("torchvision:resnet19", {}, "torchvision has no model 'resnet19'; did you mean"),
            ("torchvision:fasterrcnn_resnet50_fpn", {}, "torchvision has no model"),
            ("torchvision:resnet18", {"weights": "NO_SUCH"}, "cannot be built"),
        ],
    )
    def test_errors_say_what_is_wrong(self, name, options, message):
        with pytest.raises(ModelError, match=message) as refusal:
            build_model(name, **options)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("library", ["timm", "torchvision"])
    def test_a_missing_library_names_the_extra(self, library, monkeypatch):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ModelError, match=rf"pip install {library} \(the extra '{library}'\)"):
            build_model(f"{library}:resnet18")


WRAPPED = """
import torch
from torch import nn

def plain(num_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

def compiled(num_classes, in_channels):
    return torch.compile(plain(num_classes, in_channels))

def parallel(num_classes, in_channels):
    return nn.DataParallel(torch.compile(plain(num_classes, in_channels)))

def inside(num_classes, in_channels):
    return nn.Sequential(torch.compile(plain(num_classes, in_channels)), nn.Identity())

def scripted(num_classes, in_channels):
    return nn.Sequential(torch.jit.script(plain(num_classes, in_channels)))

def half(num_classes, in_channels):
    return plain(num_classes, in_channels).bfloat16()

def double(num_classes, in_channels):
    return plain(num_classes, in_channels).double()

def lazy(num_classes):
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(),
                         nn.LazyLinear(num_classes))
"""


@pytest.fixture
def wrapped(tmp_path, monkeypatch):
    (tmp_path / "wrapped_networks.py").write_text(WRAPPED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("wrapped")
@pytest.mark.parametrize("name", ["compiled", "parallel", "inside"])
def test_wrappers_of_a_network_are_taken_off(name):
    model = build_model(f"wrapped_networks:{name}", num_classes=3, in_channels=1)
    kinds = {type(module) for module in model.modules()}
    assert kinds <= {nn.Sequential, nn.Conv2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear,
                     nn.Identity}  # fmt: skip
    assert not any("_orig_mod" in key or "module" in key for key in model.state_dict())
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.usefixtures("wrapped")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_scripted_network_is_refused_before_anything_is_done_with_it():
    with pytest.raises(ModelError, match=r"scripted network, .* before torch\.jit\.script"):
        build_model("wrapped_networks:scripted", num_classes=3, in_channels=1)


@pytest.mark.usefixtures("wrapped")
@pytest.mark.parametrize(("name", "kind"), [("half", "bfloat16"), ("double", "float64")])
def test_weights_that_would_be_measured_as_another_type_are_refused(name, kind):
    with pytest.raises(ModelError, match=rf"weights are {kind} \('0\.weight'\).* in float32"):
        build_model(f"wrapped_networks:{name}", num_classes=3, in_channels=1)


@pytest.mark.usefixtures("wrapped")
def test_lazy_layers_get_their_shapes_from_the_input():
    model = build_model("wrapped_networks:lazy", num_classes=3)
    assert materialise(model, (1, 6, 6)) is model
    assert model.training
    assert model[3].in_features == 4 * 4 * 4
    assert not model[1].num_batches_tracked
    with pytest.raises(ModelError, match="its lazy layers cannot be given shapes by an input of 1"):
        materialise(build_model("wrapped_networks:lazy", num_classes=3), (1, 2, 2))
