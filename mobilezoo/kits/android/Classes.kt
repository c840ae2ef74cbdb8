package org.mobilezoo.classify

import kotlin.math.exp

class Guess(val index: Int, val label: String, val probability: Double)

/** The best classes of an image, by its scores; of equal ones the first. */
fun bestOf(scores: FloatArray, model: Model, count: Int = 5): List<Guess> {
    val most = scores.max()
    val powers = scores.map { exp((it - most).toDouble()) }
    val sum = powers.sum()
    val shares = when (model.output) {
        "logits" -> powers.map { it / sum }
        "percent" -> scores.map { it / 100.0 }
        else -> scores.map { it.toDouble() }
    }
    return shares.indices.sortedByDescending { shares[it] }.take(count).map { Guess(it, labelOf(it, model), shares[it]) }
}
