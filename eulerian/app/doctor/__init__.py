"""`eulerian doctor`: is this machine able to run, and what would a configuration need?"""
