from dporun_trainer.machine import Machine


def test_each_process_loads_onto_its_own_gpu() -> None:
    """Through the host's memory, eight processes would hold eight copies there."""
    machine = Machine(cuda=True, bf16=True, memory=80 * 2**30, name="H100", index=3)
    assert (machine.device, machine.device_map) == ("cuda:3", {"": "cuda:3"})
    cpu = Machine(cuda=False, bf16=True, memory=2**30, name="the CPU")
    assert (cpu.device, cpu.device_map) == ("cpu", None)
