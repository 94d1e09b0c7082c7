"""Jobs for schedulers: their text first, handing it over second. Knows nothing of trainings, studies or databases."""
