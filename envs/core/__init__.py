"""What every game is made of: rules, tasks, noise, and the registry of families."""

from metaduel.envs.core.lazy import moved

__getattr__ = moved(
    __name__,
    {
        "Duel": "metaduel.envs.Duel",
        "Episode": "metaduel.envs.core.game.Episode",
        "Game": "metaduel.envs.Game",
        "Outcome": "metaduel.envs.Outcome",
        "Pair": "metaduel.envs.core.game.Pair",
        "Player": "metaduel.envs.core.game.Player",
        "Transition": "metaduel.envs.Transition",
        "Tree": "metaduel.envs.core.trees.Tree",
        "View": "metaduel.envs.View",
        "select_rows": "metaduel.envs.core.trees.select_rows",
        "take_rows": "metaduel.envs.core.trees.take_rows",
        "tree_map": "metaduel.envs.core.trees.tree_map",
    },
)
