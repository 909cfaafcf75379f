"""The machine and its operating system; nothing here knows of networks or runs.

`devices` resolves a device's name and counts cores, `memory` tunes and reads the process's
memory, `signals` turns Ctrl-C and SIGTERM into a clean stop, `environment` describes versions
and hardware for records, `machine_lock` keeps measurements and trainings apart,
`processor_use` tells what other processes used of the processor, `tarball` reads
archives from untrusted sources. torch, scipy, psutil and cpuinfo are imported inside functions:
every command starts with some of these modules, and few need those libraries.
"""
