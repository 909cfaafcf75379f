"""How fast networks run: what really ran, with intervals, beside the machine's own ceiling.

The files, in the order in which a measurement passes through them:

| file | what it does |
|---|---|
| `measure.py` | runs one measurement from names to a record: `bench.measure`, `bench throughput` |
| `measured_network.py` | what a network takes and costs (of a file: `bench.export.examine`) |
| `configurations.py` | checks a request and expands it into configurations |
| `preparation.py` | resolves device and threads; makes ONNX files; finds batch sizes; pins cores |
| `autobatch.py` | finds the batch size for `--batch-size auto` |
| `backends/` | one file per runtime behind the interface of `backends/protocol.py` |
| `timing/runner.py`, `process_runner.py` | open a configuration, in this process or a subprocess |
| `timing/warmup.py` | decides when warm-up ends |
| `timing/sampling.py` | interleaves the configurations round by round until enough is known |
| `timing/replicates.py` | measures in several fresh processes, one after the other |
| `timing/streams.py` | keeps several batches in flight; answers queries as they arrive |
| `timing/cold_start.py`, `cold_process.py` | measure import, load and first inference |
| `timing/server_scenario.py` | finds the highest rate of the server scenario |
| `machine/` | measures ceilings, noise and energy while the samples are taken |
| `profile/` | measures the time of each layer, after the samples |
| `timing/trial.py` | holds one configuration's samples, interval, status and error |
| `rows.py` | turns trials into rows of the `throughput` table |
| `ranking.py` | finds the fastest of several rows, and those that may be as fast |
| `tuning.py` | searches for the fastest configuration: `bench tune` |
| `compared_speeds.py`, `speed_changes.py` | compare two measurements: `bench compare` |

Intervals are computed in `bench.system.intervals`, which `bench.export` uses as well.

A measured network is described by as few types as keep four things apart. The *request*
(`Request`) is what the user wants, checked before any work. The *plan* (`Configuration`) is one
combination of it: immutable and small, so that a subprocess opens exactly what the parent planned.
The *state* (`Trial`) is one configuration while it is measured: its runner and its samples, and
nothing else is changed. Before it is opened and after it is closed it is plain data, so
`measure.run_trials`, which opens, samples and closes a whole comparison, can be called in a
process of its own. The *result* is a row, a dictionary of columns; `Context` (results folder,
device, threads) accompanies all of them.

At the border to a runtime stand the types that other packages rely on: a backend gets a `Workload`
(a configuration whose network is loaded), returns a `Prepared`, and reports what ran as `Executed`.
A `Runner` calls a `Prepared` and adds what only it knows, energy and memory, in a `RunnerReport`.
"""
