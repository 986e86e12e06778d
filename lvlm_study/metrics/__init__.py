"""Is a map right? Faithfulness, plausibility, localisation, sanity, statistics."""
