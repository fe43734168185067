"""The same numbers to the bit, whatever torch's default device and precision are: see ``under_defaults.py``.

On the device "meta" no tensor has numbers, so that what is made on the default device shows itself.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from metaduel.agents.runtime import torch_defaults

SCRIPT = Path(__file__).parent / "under_defaults.py"
DEFAULTS = ((), ("meta", "float64"))  # what depends on either depends on both


def digests(names):
    done = subprocess.run([sys.executable, str(SCRIPT), *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_number_depends_on_them():
    with ThreadPoolExecutor(2) as pool:
        plain, other = pool.map(digests, DEFAULTS)
    wrong = [f"{name}: {found}" for name, found in plain.items() if len(found) != 64]
    assert not wrong, "\n".join(wrong)
    wrong = [f"{name}: {other[name]}" for name in plain if other[name] != plain[name]]
    assert not wrong, "\n".join(wrong)


def test_torchs_own_defaults_are_put_back():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            with pytest.raises(KeyboardInterrupt), torch_defaults():  # noqa: PT012
                made = torch.zeros(1)
                raise KeyboardInterrupt
            assert (made.dtype, made.device.type) == (torch.float32, "cpu")
            after = torch.zeros(1)
            assert (after.dtype, after.device.type) == (torch.float64, "meta")
    finally:
        torch.set_default_dtype(torch.float32)
