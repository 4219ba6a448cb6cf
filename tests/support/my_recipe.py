"""A recipe that is carried out in seconds."""

_TRAINING = """
epochs = 1
batch_size = 16
padding = 1
bf16 = false
channels_last = false
"""
RECIPE = f"""
model = "nets:Residual"
penalties = [2]
[data]
data = "my_data:five_colours"
shares = [0.5, 0.4, 0.1]
[teacher]
model = "nets:Residual"
weights = "taught.safetensors"
[reference]
model = "nets:Residual"
weights = "known.safetensors"
[dense]{_TRAINING}
views = 2
[adapt]{_TRAINING}
n_random = 1
[search]
budgets = [0.6, 1]
n_candidates = 6
n_images = 10
[specialise]{_TRAINING}
views = 2
sandwich = false
[policy]
penalty = 0.1
total_steps = 64
n_envs = 8
n_steps = 4
batch_size = 8
n_epochs = 1
validate_every = 64
hidden = [8]
[tune]{_TRAINING}
views = 2
floor = 4
rounds = 2
"""
