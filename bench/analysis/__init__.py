"""Analyse a network: `lesion` (leave out blocks), `gradients` (by depth), `landscape` (the loss).

Each measures runs or models and returns the records that it writes; `bench.api` makes frames.
"""
