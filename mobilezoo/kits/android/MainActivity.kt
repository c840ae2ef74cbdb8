package org.mobilezoo.classify

import android.Manifest
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.Preview
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import java.util.concurrent.Executors

/** The camera's picture, or a photograph from the phone, with the five best classes below it. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // the only thread that touches the classifier
    private val classifier by lazy { Classifier(this) }
    private lateinit var preview: PreviewView
    private lateinit var text: TextView
    @Volatile private var held = false // a photograph's answer stays until the camera's picture is tapped

    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) startCamera() else text.text = "The camera was refused. Photographs still work."
    }
    private val photograph = registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { chosen ->
        if (chosen != null) {
            held = true
            classify(chosen)
        }
    }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        preview = PreviewView(this)
        preview.setOnClickListener { held = false }
        text = TextView(this).apply { setPadding(32, 32, 32, 32) }
        val button = Button(this).apply { setText("Photograph") }
        button.setOnClickListener {
            photograph.launch(PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly))
        }
        val column = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        column.fitsSystemWindows = true
        column.addView(preview, LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, 0, 1f))
        column.addView(text)
        column.addView(button)
        setContentView(column)
        val known = ContextCompat.checkSelfPermission(this, Manifest.permission.CAMERA)
        if (known == PackageManager.PERMISSION_GRANTED) startCamera() else permission.launch(Manifest.permission.CAMERA)
    }

    private fun startCamera() {
        val waiting = ProcessCameraProvider.getInstance(this)
        waiting.addListener({
            val shown = Preview.Builder().build().also { it.surfaceProvider = preview.surfaceProvider }
            val analysis = ImageAnalysis.Builder()
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .build()
            analysis.setAnalyzer(worker) { frame ->
                frame.use { if (!held) answer { upright(it.toBitmap(), it.imageInfo.rotationDegrees) } }
            }
            waiting.get().bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, shown, analysis)
        }, ContextCompat.getMainExecutor(this))
    }

    private fun classify(chosen: Uri) = worker.execute {
        answer {
            // Upright by EXIF, in software memory so that its pixels can be read.
            ImageDecoder.decodeBitmap(ImageDecoder.createSource(contentResolver, chosen)) { decoder, _, _ ->
                decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
            }
        }
    }

    private fun upright(image: Bitmap, degrees: Int): Bitmap {
        if (degrees == 0) return image
        val turn = Matrix().apply { postRotate(degrees.toFloat()) }
        return Bitmap.createBitmap(image, 0, 0, image.width, image.height, turn, false)
    }

    private fun answer(read: () -> Bitmap) {
        val lines = try {
            val image = read()
            val began = SystemClock.elapsedRealtime()
            val best = classifier.best(image)
            val spent = SystemClock.elapsedRealtime() - began
            best.map { "%6.2f %%  %s".format(100 * it.probability, it.label) } + "$spent ms with preparation"
        } catch (error: Exception) { // a damaged photograph, or one of a kind that this phone does not read
            listOf(error.message ?: error.toString())
        }
        runOnUiThread { text.text = lines.joinToString("\n") }
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.execute { classifier.close() }
        worker.shutdown()
    }
}
