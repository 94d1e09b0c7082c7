"""Jobs for schedulers: their text, and the commands that submit it."""
