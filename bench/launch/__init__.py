"""Carry out a plan: in this process, in worker processes, on a Ray cluster, on Slurm."""
