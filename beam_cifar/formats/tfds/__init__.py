"""TensorFlow Datasets: `read` prepared datasets, `write` them; `records` has their files of examples."""
