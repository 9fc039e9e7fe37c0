"""NVML is asked through a library of its name, compiled here, and NVIDIA's own bindings."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = """
typedef unsigned long long u64;
typedef struct { void *device; u64 type, data; unsigned gpu, compute; } Event;
static int pending = 2;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { __builtin_strcpy(text, "580.95.05"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) { *gpu = (void *)(u64)(index + 1); return 0; }
int nvmlDeviceGetIndex(void *gpu, unsigned *index) { *index = (unsigned)(u64)gpu - 1; return 0; }
int nvmlEventSetCreate(void **set) { *set = (void *)7; return 0; }
int nvmlEventSetFree(void *set) { return 0; }
int nvmlDeviceRegisterEvents(void *gpu, u64 types, void *set) { return types == 8 ? 0 : 2; }
int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
  if (!pending--) return 10;
  event->device = (void *)2; event->data = 48; return 0;
}
int nvmlDeviceGetTotalEccErrors(void *gpu, int error, int counter, u64 *count) {
  if (gpu == (void *)1) return 3;
  *count = error == 1 && counter == 0 ? 5 : 0; return 0;
}
"""
ASK = "from dporun_trainer import nvml\nwith nvml.watching() as evidence: print(nvml.driver_version(), '|', evidence())"


def asked(folder: Path) -> str:
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
    return subprocess.check_output([sys.executable, "-c", ASK], env=environment, text=True).strip()


def test_what_nvml_knows_of_a_failure(tmp_path: Path) -> None:
    """The same event twice, and a GPU that counts no errors of its memory."""
    (tmp_path / "nvml.c").write_text(SOURCE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libnvidia-ml.so.1", tmp_path / "nvml.c"], check=True)
    assert asked(tmp_path) == "580.95.05 | GPU 1: Xid 48; GPU 1: 5 uncorrected ECC errors"


def test_without_nvml_nothing_is_known(tmp_path: Path) -> None:
    assert asked(tmp_path) == "None |"
