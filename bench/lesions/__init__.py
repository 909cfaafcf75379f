"""What a trained network's blocks do: dropped, reordered, and measured.

Veit, Wilber and Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks" (arXiv:1605.06431), section 4.
"""
