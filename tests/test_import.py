"""``import autogaze`` is cheap, and ``autogaze.gaze`` is the function in whatever order things are imported."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import autogaze
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_brings_in_nothing_heavy() -> None:
    heavy = ["torch", "av", "rich", "tyro", "PIL", "huggingface_hub", "safetensors", "cv2", "pandas"]
    assert python(f"import sys, autogaze; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_help_needs_no_torch() -> None:
    code = """
import contextlib, io, sys
sys.argv = ["autogaze", "gaze", "--help"]
from autogaze.cli import main
try:
    with contextlib.redirect_stdout(io.StringIO()):
        main()
finally:
    print("torch" in sys.modules)
"""
    assert python(code) == "False"


ORDERS = [
    "import autogaze",
    "import autogaze.gaze",
    "from autogaze.gaze import Gaze; import autogaze",
    "import autogaze; autogaze.gaze; from autogaze.gaze import Gaze",
    "import autogaze; from autogaze.gaze import Gaze; import autogaze.pipeline, autogaze.archive",
    "import importlib, autogaze; importlib.import_module('autogaze.gaze')",
    "import importlib, sys, autogaze; importlib.reload(sys.modules['autogaze.gaze'])",
    "from autogaze import gaze; import autogaze; assert autogaze.gaze is gaze",
    "from autogaze import *; import autogaze; assert autogaze.gaze is gaze",
]


def test_gaze_is_the_function_in_whatever_order_things_are_imported() -> None:
    # One process for all orders, because importing torch takes seconds; autogaze is forgotten before each.
    code = f"""
import sys, torch, types
for order in {ORDERS}:
    for name in [name for name in sys.modules if name.split(".")[0] == "autogaze"]:
        del sys.modules[name]
    space = {{}}
    exec(order, space)
    gaze = space["autogaze"].gaze
    print(type(gaze) is types.FunctionType and gaze.__name__ == "gaze" and gaze.__module__ == "autogaze.pipeline")
"""
    assert python(code).splitlines() == ["True"] * len(ORDERS)


def test_the_module_is_found_by_its_path() -> None:
    assert python("import autogaze; from autogaze.gaze import Gaze, load; print(Gaze is autogaze.Gaze)") == "True"


def test_a_gaze_can_be_pickled_by_the_path_of_its_class() -> None:
    layout = FrameLayout.resized(PatchGrid(), height_px=32, width_px=32)
    gaze = Gaze(index=np.array([3]), count=np.array([1]), layout=layout)
    assert pickle.loads(pickle.dumps(gaze)).equals(gaze)


@pytest.mark.parametrize("name", autogaze.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(autogaze, name) is not None
    assert name in dir(autogaze)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'look'"):
        autogaze.look  # noqa: B018
