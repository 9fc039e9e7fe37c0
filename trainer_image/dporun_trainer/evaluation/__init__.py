"""What happens after training: rewards, answers, forgetting, merge."""
