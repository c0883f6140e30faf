"""One episode by hand: ask about a photo, run two pieces of Python in the sandbox, answer.

Run: python examples/standalone.py [sandbox]    (auto, docker, docker-strict or local)
"""

from __future__ import annotations

import sys

import gymnasium as gym

ZOOM = """I enlarge the chest, where the patch is.
<code>```python
patch = image_clue_0.crop((125, 335, 225, 435))
plt.imshow(patch.resize((600, 600)))
plt.show()
```</code>"""

MEASURE = """The patch is there. I measure its main colour.
<code>```python
pixels = np.asarray(patch.convert("HSV"))[20:80, 20:80].reshape(-1, 3)
coloured = pixels[pixels[:, 1] > 90]
print("most frequent hue in degrees:", np.bincount(coloured[:, 0]).argmax() * 360 // 256)
```</code>"""

ANSWER = r"That is violet-blue. <answer>\boxed{C}</answer>"


def main(sandbox: str = "auto") -> float:
    """Play the episode and return the sum of its rewards."""
    env = gym.make("pyvision_env:PyVision/ImageQA-v0", sandbox=sandbox)
    observation, info = env.reset(seed=0, options={"task_id": "demo-image-mission-patch"})
    print(observation["text"])
    episode_return = 0.0
    for action in (ZOOM, MEASURE, ANSWER):
        observation, reward, _terminated, _truncated, info = env.step(action)
        episode_return += float(reward)
        print(f"\n{action}\n-> {observation['text']} [{len(observation['images'])} image(s), reward {reward:g}]")
    print(f"\n{info['end_reason']}, correct: {info['correct']}, return {episode_return:g} {info['reward_terms']}")
    env.close()
    return episode_return


if __name__ == "__main__":
    main(*sys.argv[1:])
