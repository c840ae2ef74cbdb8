package org.mobilezoo.classify

import java.nio.ByteBuffer

/** What the file answers for the first image of a batch, as real numbers. */
fun numbersOf(answer: ByteBuffer, model: Model): FloatArray {
    val size = if (model.outputType == "float32") 4 else 1
    val numbers = FloatArray(answer.capacity() / size / model.shape[0]) {
        val number = when (model.outputType) {
            "float32" -> answer.getFloat(4 * it)
            "int8" -> answer.get(it).toFloat()
            else -> (answer.get(it).toInt() and 255).toFloat()
        }
        model.outputScale?.let { scale -> (number - model.outputZero) * scale.toFloat() } ?: number
    }
    require(numbers.all { it.isFinite() }) { "the network answers with numbers that are not finite" }
    return numbers
}

/** The name of a class. */
fun labelOf(index: Int, model: Model) = model.labels.getOrNull(index) ?: "class $index"
