"""Search over the space that a spec's knobs span. Free of torch, except for evaluators that train or measure."""
