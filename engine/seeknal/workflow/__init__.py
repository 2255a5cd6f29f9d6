"""What happens: planning, scheduling, executing, environments, promotion, delivery."""
