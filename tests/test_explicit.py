"""Every tensor of ours is made with an explicit dtype and device: torch's defaults are the caller's business."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch

ROOMS = ("envs", "agents", "meta", "benchmarks", "cli")
# torch's functions that make a tensor from numbers: by its default dtype, on its default device.
MAKERS = {
    "arange", "as_tensor", "asarray", "empty", "empty_permuted", "empty_strided", "eye", "full", "linspace", "logspace", "normal",
    "ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "sparse_coo_tensor", "tensor", "tril_indices",
    "triu_indices", "zeros", "bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window",
}  # fmt: skip
DEFAULTS = {"get_default_dtype", "get_default_device", "set_default_dtype", "set_default_device", "manual_seed"}


def faults(source):
    """Lines that leave a dtype or a device to torch's defaults."""
    tree, found = ast.parse(source), []
    # It alone may change torch's defaults: it puts them back.
    tree.body = [node for node in tree.body if getattr(node, "name", None) != "torch_defaults"]
    for node in ast.walk(tree):
        wrong = ""
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            wrong = ", ".join(alias.name for alias in node.names if alias.name in MAKERS | DEFAULTS)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            given = {keyword.arg for keyword in node.keywords}
            if owner == "torch" and name in MAKERS:
                wrong = " and ".join(sorted({"dtype", "device"} - given))
            elif owner == "torch" and (name in DEFAULTS or name.endswith("Tensor")):
                wrong = name
            elif owner == "torch" and name == "where" and all(map(_number, node.args[1:])) and len(node.args) == 3:
                wrong = "where of two numbers"
            elif owner == "nn" and _has_weights(name) and not {"dtype", "device"} <= given:
                wrong = f"nn.{name}"
        if wrong:
            found.append(f"{node.lineno}: {wrong}: {ast.unparse(node)[:80]}")
    return found


def _has_weights(name):
    made = getattr(torch.nn, name, None)
    return isinstance(made, type) and "dtype" in inspect.signature(made).parameters


def _number(node):
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


@pytest.mark.parametrize("room", ROOMS)
def test_every_tensor_has_an_explicit_dtype_and_device(room):
    (folder,) = importlib.import_module(f"metaduel.{room}").__path__
    files = sorted(Path(folder).rglob("*.py"))
    assert files
    found = [f"{path.relative_to(folder)}:{fault}" for path in files for fault in faults(path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "torch.zeros(3)",
        "torch.zeros(3, dtype=x.dtype)",
        "torch.arange(3, device=x.device)",
        "torch.rand(3, generator=generator, **like)",
        "torch.tensor([1, 2])",
        "torch.as_tensor(space.low)",
        "torch.where(x > 0, 1.0, -1.0)",
        "torch.get_default_dtype()",
        "torch.manual_seed(0)",
        "torch.FloatTensor(3)",
        "nn.Linear(2, 3)",
        "from torch import zeros",
    ],
)
def test_what_leaves_them_to_the_defaults_is_found(line):
    assert len(faults(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.zeros(3, dtype=x.dtype, device=x.device)",
        "torch.zeros_like(x)",
        "torch.from_numpy(x)",
        "x.new_zeros(3)",
        "torch.where(x > 0, x, 0.0)",
        "torch.Generator().manual_seed(0)",  # on the CPU by any default
        "torch.default_generator.manual_seed(0)",
        "from torch import Tensor, nn",
        "class Own(nn.Module): pass",
        "nn.Identity()",
    ],
)
def test_what_names_them_or_takes_them_from_a_tensor_is_not(line):
    assert not faults(line)
