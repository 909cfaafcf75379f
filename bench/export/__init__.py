"""From a trained network to a file that runs elsewhere, with the proof that it computes the same.

`pipeline` makes an ONNX file from a target (`targets`) and proves it (`parity`); `half`
and `quantise` change its precision, `sensitivity` finds the layers that suffer from it;
`engines` builds TensorRT engines; `bundle` writes a folder that can be handed over.
"""
