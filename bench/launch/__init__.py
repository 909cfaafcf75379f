"""Carry out a plan: in this process, in worker processes, on a Ray cluster, on Slurm.

`carry_out` makes and carries out a plan and records the study; `workers` decides the device, the
number of workers and their threads; `assignment` is what a launcher gets, `launchers` names them,
and `processes`, `raytasks` and `slurm` are one each. `estimate`, `planning` and `learning_rates`
say how long a plan takes, here and elsewhere, and which learning rate to take.
"""
