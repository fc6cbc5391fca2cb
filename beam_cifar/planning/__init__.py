"""From what is known of the input to tasks: decided before any pixel is read.

`plan` has the types, `survey` looks at the inputs, `by_counts`, `by_rows` and `by_examples` decide which row goes
where. Jobs and everything above import from here; nothing here starts a job.
"""
