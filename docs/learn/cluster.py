# %% [markdown]
# # On a cluster, with restart
