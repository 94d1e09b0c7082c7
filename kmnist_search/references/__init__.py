"""Five published systems, tuned by hand: trained as they were, tested once, and put beside what they claim."""
