"""Studies: searches that last. A folder with a plan, a spec and trials; the loop, the workers, and what a person sees of it. Free of torch, except
for what evaluators load."""
