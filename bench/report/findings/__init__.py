"""What results say: statistics, the answer, the choice, agreement, time to accuracy."""
