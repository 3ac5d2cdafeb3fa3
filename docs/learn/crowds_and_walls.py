# %% [markdown]
# # Crowds and walls
