"""What a method costs: parameters, multiply-accumulates, time, memory."""
