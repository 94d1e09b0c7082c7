"""Jobs for Slurm and Kubernetes: their scripts and manifests, and the commands that submit them."""
