package org.mobilezoo.classify

import java.nio.ByteBuffer
import kotlin.math.exp

class Guess(val index: Int, val label: String, val probability: Double)

/** What the file answers for the first image of a batch, as the best classes; of equal ones the first. */
fun bestOf(answer: ByteBuffer, model: Model, count: Int = 5): List<Guess> {
    val scores = DoubleArray(answer.capacity() / (if (model.outputType == "float32") 4 else 1) / model.shape[0]) {
        val number = when (model.outputType) {
            "float32" -> answer.getFloat(4 * it).toDouble()
            "int8" -> answer.get(it).toDouble()
            else -> (answer.get(it).toInt() and 255).toDouble()
        }
        model.outputScale?.let { scale -> (number - model.outputZero) * scale } ?: number
    }
    require(scores.all { it.isFinite() }) { "the network answers with numbers that are not finite" }
    val most = scores.max()
    val powers = scores.map { exp(it - most) }
    val sum = powers.sum()
    val shares = when (model.output) {
        "logits" -> powers.map { it / sum }
        "percent" -> scores.map { it / 100 }
        else -> scores.toList()
    }
    return shares.indices.sortedByDescending { shares[it] }.take(count)
        .map { Guess(it, model.labels.getOrNull(it) ?: "class $it", shares[it]) }
}
