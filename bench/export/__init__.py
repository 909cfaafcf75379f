"""From a trained network to a file that runs elsewhere, with the proof that it computes the same.

- `pipeline` exports networks as the `settings` say: `graph` traces one to ONNX, `convert` changes
  its precision (`half`, `quantise`, `sensitivity`, `verdict`), `preprocess` puts preprocessing into
  the graph, `metadata` and `files` write it.
- `proof` compares the file with PyTorch: its logits (`parity`) and its accuracy (`accuracy`), run
  by ONNX Runtime (`session`).
- `build` makes TensorRT engines (`tensorrt`, `engines`) of exports and of other ONNX files
  (`foreign`).
- `output` copies exports to a folder, `bundle` writes one that runs without torch, `classifier`
  classifies images with an export.
"""
