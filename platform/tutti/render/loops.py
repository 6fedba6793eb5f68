"""The inner loops of sound, compiled: a voice, its notes in the mix, loudness, true peak, dither.

Legend: S samples, C channels, N notes of a voice, B blocks of samples, P phases, K taps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tutti.models.compiled import compiled

VOICE_BLOCK_SAMPLES = 64


@compiled
def voice(
    made_S: Any, recording: Any, loop: Any, speed_B: Any, filter_B: Any, filters: Any, envelope: Any, scale: Any
) -> int:
    """Fill ``made_S`` with a recording at a moving speed, filtered and shaped; gives how many samples there are.

    Args:
        made_S: float32, as long as asked.
        recording: int16; position 0 of the sound is its second value, and four values follow the last position.
        loop: float64, where the loop starts and ends; both the end of the recording where nothing repeats.
        speed_B: positions a sample at the edges of blocks, straight between them; one more than blocks.
        filter_B: row of ``filters`` that each block passes, -1: none.
        filters: b0, b1, b2, a1, a2 of biquads.
        envelope: samples of delay, attack and hold, samples of decay, factor a sample of decay, level of sustain.
        scale: of one step of the recording.
    """
    loop_start, loop_end = loop[0], loop[1]
    delay, attack, hold, decay = int(envelope[0]), int(envelope[1]), int(envelope[2]), int(envelope[3])
    fall, sustain = envelope[4], envelope[5]
    rise = 1.0 / max(attack - 1, 1)
    position, level, first, second = 0.0, 1.0, 0.0, 0.0
    length = len(made_S)
    for block in range(len(filter_B)):
        start = block * 64
        stop = min(start + 64, length)
        speed = speed_B[block]
        change = (speed_B[block + 1] - speed) / 64
        row = filter_B[block]
        if row >= 0:
            b0, b1, b2, a1, a2 = filters[row, 0], filters[row, 1], filters[row, 2], filters[row, 3], filters[row, 4]
        else:
            b0, b1, b2, a1, a2 = 1.0, 0.0, 0.0, 0.0, 0.0
        for sample in range(start, stop):
            if position >= loop_end:
                if loop_start >= loop_end:
                    return sample
                position = loop_start + (position - loop_start) % (loop_end - loop_start)
            base = int(position)
            fraction = np.float32(position - base)
            before, here = np.float32(recording[base]), np.float32(recording[base + 1])
            after, beyond = np.float32(recording[base + 2]), np.float32(recording[base + 3])
            cubic = fraction * (np.float32(3) * (here - after) + beyond - before)
            square = np.float32(2) * before - np.float32(5) * here + np.float32(4) * after - beyond + cubic
            heard = here + np.float32(0.5) * fraction * (after - before + fraction * square)
            passed = b0 * heard + first
            first = b1 * heard - a1 * passed + second
            second = b2 * heard - a2 * passed
            at = sample - delay
            if at < 0:
                level = 0.0
            elif at < attack:
                level = at * rise
            elif at <= attack + hold:
                level = 1.0
            elif at < attack + hold + decay:
                level *= fall
            else:
                level = sustain
            made_S[sample] = np.float32(passed * level * scale)
            position += speed
            speed += change
    return length


@compiled
def add_notes(
    mix_CS: Any, held_S: Any, release_S: Any, ends: Any, onset_N: Any, held_N: Any, cut_N: Any, depth_N: Any,
    gain_NC: Any, choke: int,
) -> None:  # fmt: skip
    """Add every note of one voice: the voice while held, its release after, a short fade where it is choked.

    Args:
        mix_CS: what they are added to.
        held_S, release_S, ends: as :class:`tutti.render.voice.Voice`.
        onset_N, held_N, cut_N: samples: where a note begins, how long it is held, where it must be silent.
        depth_N: decibels below the voice's largest sample at which a note is over.
        gain_NC: left and right.
        choke: samples of the fade before a cut.
    """
    for note in range(len(onset_N)):
        onset, held, depth = onset_N[note], held_N[note], depth_N[note]
        length = min(ends[depth], held + len(release_S) * depth // (len(ends) - 1))
        if cut_N[note] - onset < length:
            length = cut_N[note] - onset
            fade = min(choke, length)
        else:
            fade = 0
        free = length - fade
        down = min(held, free)
        for side in range(2):
            gain = gain_NC[note, side]
            if gain <= 0:
                continue
            mixed = mix_CS[side, onset : onset + length]
            for sample in range(down):
                mixed[sample] += held_S[sample] * gain
            for sample in range(down, free):
                mixed[sample] += held_S[sample] * release_S[sample - held] * gain
            for sample in range(free, length):
                factor = np.float32(length - 1 - sample) / np.float32(max(fade - 1, 1))
                if sample >= held:
                    factor *= release_S[sample - held]
                mixed[sample] += held_S[sample] * factor * gain


@compiled
def weighted_energies(sound_CS: Any, filters: Any, hop: int, energy_B: Any) -> None:
    """Sum of squares over the channels, after two biquads, of each ``hop`` samples.

    Args:
        sound_CS: float32.
        filters: b0, b1, b2, a1, a2 of the two, float64.
        energy_B: filled; what is beyond its last whole hop is left out.
    """
    energy_B[:] = 0.0
    p0, p1, p2, p3, p4 = filters[0, 0], filters[0, 1], filters[0, 2], filters[0, 3], filters[0, 4]
    q0, q1, q2, q3, q4 = filters[1, 0], filters[1, 1], filters[1, 2], filters[1, 3], filters[1, 4]
    for channel in range(len(sound_CS)):
        sound_S = sound_CS[channel]
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for block in range(len(energy_B)):
            energy = 0.0
            for sample in range(block * hop, (block + 1) * hop):
                value = np.float64(sound_S[sample])
                shelved = p0 * value + a
                a = p1 * value - p3 * shelved + b
                b = p2 * value - p4 * shelved
                passed = q0 * shelved + c
                c = q1 * shelved - q3 * passed + d
                d = q2 * shelved - q4 * passed
                energy += passed * passed
            energy_B[block] += energy


@compiled
def peaks(sound_S: Any, taps_PK: Any, hop: int, quiet: Any, peak_B: Any) -> None:
    """Raise ``peak_B`` to the largest oversampled magnitude of each ``hop`` samples.

    Args:
        sound_S: float32, with K samples before and after what counts.
        taps_PK: the interpolator's taps for the phases between samples.
        quiet: where no sample near a block, times what the taps may raise it, is above this, none is looked between.
        peak_B: one for each hop of what counts.
    """
    phases, reach = taps_PK.shape
    raised = np.float32(0)
    for phase in range(phases):
        total = np.float32(0)
        for tap in range(reach):
            total += abs(taps_PK[phase, tap])
        raised = max(raised, total)
    between_S = np.empty(hop, dtype=np.float32)
    for block in range(len(peak_B)):
        start = reach + block * hop
        largest, near = np.float32(0), np.float32(0)
        for sample in range(start, start + hop):
            largest = max(largest, abs(sound_S[sample]))
        for sample in range(start - reach, start + hop + reach):
            near = max(near, abs(sound_S[sample]))
        if near * raised > quiet and near * raised > peak_B[block]:
            for phase in range(phases):
                between_S[:] = np.float32(0)
                for tap in range(reach):
                    weight = taps_PK[phase, tap]
                    window_S = sound_S[start - reach // 2 + 1 + tap : start - reach // 2 + 1 + tap + hop]
                    for sample in range(hop):
                        between_S[sample] += weight * window_S[sample]
                for sample in range(hop):
                    largest = max(largest, abs(between_S[sample]))
        peak_B[block] = max(peak_B[block], largest)


@compiled
def in_steps(sound_CS: Any, seed: Any, steps: Any, made_SC: Any) -> None:
    """Whole steps of the sound with triangular dither: noise of two draws, each a hash of seed, sample and channel.

    Source of the hash: C. Wellons, ``lowbias32`` (https://nullprogram.com/blog/2018/07/31/).
    """
    channels, length = sound_CS.shape
    for channel in range(channels):
        sound_S = sound_CS[channel]
        for sample in range(length):
            value = np.uint32(sample) * np.uint32(2 * channels) + np.uint32(2 * channel) + np.uint32(seed)
            noise = np.float32(0)
            for draw in range(2):
                mixed = np.uint32(value + np.uint32(draw))
                mixed ^= mixed >> np.uint32(16)
                mixed = np.uint32(mixed * np.uint32(0x7FEB352D))
                mixed ^= mixed >> np.uint32(15)
                mixed = np.uint32(mixed * np.uint32(0x846CA68B))
                mixed ^= mixed >> np.uint32(16)
                uniform = np.float32(np.int32(mixed >> np.uint32(8))) * np.float32(2.0**-24)
                noise += uniform if draw == 0 else -uniform
            whole = np.rint(sound_S[sample] * steps + noise)
            made_SC[sample, channel] = np.int16(min(max(whole, -steps), steps - np.float32(1)))


@compiled
def cross(sides_CK: Any, own_CK: Any, other_CK: Any, made_CK: Any) -> None:
    """Each side of a spectrum through its own filter, and the other side through another."""
    for side in range(2):
        this_K, that_K = sides_CK[side], sides_CK[1 - side]
        own_K, other_K, made_K = own_CK[side], other_CK[side], made_CK[side]
        for bin_ in range(len(made_K)):
            made_K[bin_] = this_K[bin_] * own_K[bin_] + that_K[bin_] * other_K[bin_]
