"""Through detection: what a detector sees, hallucination, perturbation, bias."""
