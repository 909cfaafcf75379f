"""What a person sees of results.

- `study_data`: the records and frames of one study, read once.
- `findings/`: statistics, and sentences made from them.
- `tables/`: tables as text.
- `charts/`: charts as data, drawn by matplotlib and plotly.
- `pages/`: reports for terminals, Markdown, HTML and notebooks.
- `tracking/`: TensorBoard and MLflow.
"""
