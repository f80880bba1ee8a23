"""What an operator asks: what is wrong here (doctor), and how it goes."""
