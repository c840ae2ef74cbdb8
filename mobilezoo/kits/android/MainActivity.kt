package org.mobilezoo.classify

import android.Manifest
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.net.Uri
import android.os.Bundle
import android.os.SystemClock
import android.widget.Button
import android.widget.FrameLayout
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.AspectRatioStrategy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import java.util.concurrent.Executors

/** The camera's picture, or a photograph from the phone, with what the network finds in it. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor() // the only thread that touches the network
    private val network by lazy { Network(this) }
    private lateinit var preview: PreviewView
    private lateinit var layer: ImageView // over the preview: what was found in its picture, or a photograph with that
    private lateinit var text: TextView
    @Volatile private var held = false // a photograph and its answer stay until they are tapped

    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
        if (granted) startCamera() else text.text = "The camera was refused. Photographs still work."
    }
    private val photograph = registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { chosen ->
        if (chosen != null) {
            held = true
            read(chosen)
        }
    }

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        preview = PreviewView(this).apply { scaleType = PreviewView.ScaleType.FIT_CENTER }
        layer = ImageView(this).apply { scaleType = ImageView.ScaleType.FIT_CENTER }
        layer.setOnClickListener {
            held = false
            layer.setImageDrawable(null)
        }
        val picture = FrameLayout(this)
        picture.addView(preview)
        picture.addView(layer)
        text = TextView(this).apply { setPadding(32, 32, 32, 32) }
        val button = Button(this).apply { setText("Photograph") }
        button.setOnClickListener {
            photograph.launch(PickVisualMediaRequest(ActivityResultContracts.PickVisualMedia.ImageOnly))
        }
        val column = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        column.fitsSystemWindows = true
        column.addView(picture, LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, 0, 1f))
        column.addView(text)
        column.addView(button)
        setContentView(column)
        val known = ContextCompat.checkSelfPermission(this, Manifest.permission.CAMERA)
        if (known == PackageManager.PERMISSION_GRANTED) startCamera() else permission.launch(Manifest.permission.CAMERA)
    }

    private fun startCamera() {
        val waiting = ProcessCameraProvider.getInstance(this)
        waiting.addListener({
            // Both of one aspect ratio, so that what is found in the analyzed picture lies over the same in the preview.
            val ratio = AspectRatioStrategy.RATIO_4_3_FALLBACK_AUTO_STRATEGY
            val size = ResolutionSelector.Builder().setAspectRatioStrategy(ratio).build()
            val shown = Preview.Builder().setResolutionSelector(size).build()
            shown.surfaceProvider = preview.surfaceProvider
            val analysis = ImageAnalysis.Builder()
                .setResolutionSelector(size)
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .build()
            analysis.setAnalyzer(worker) { frame ->
                frame.use { if (!held) answer(false) { upright(it.toBitmap(), it.imageInfo.rotationDegrees) } }
            }
            waiting.get().bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, shown, analysis)
        }, ContextCompat.getMainExecutor(this))
    }

    private fun read(chosen: Uri) = worker.execute {
        answer(true) {
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

    private fun answer(photograph: Boolean, read: () -> Bitmap) {
        var picture: Bitmap? = null
        val lines = try {
            val image = read()
            val began = SystemClock.elapsedRealtime()
            val found = find(network, image)
            val spent = SystemClock.elapsedRealtime() - began
            picture = drawn(image, found, photograph)
            found.lines + "$spent ms with preparation"
        } catch (error: Exception) { // a damaged photograph, or one of a kind that this phone does not read
            listOf(error.message ?: error.toString())
        }
        runOnUiThread {
            if (photograph == held) { // else the user has gone on to the other
                layer.setImageBitmap(picture)
                text.text = lines.joinToString("\n")
            }
        }
    }

    /** What was found, over the photograph or over nothing; null where there is nothing to draw. */
    private fun drawn(image: Bitmap, found: Found, photograph: Boolean): Bitmap? {
        if (!photograph && found.draw == null) return null
        val picture = if (photograph) image.copy(Bitmap.Config.ARGB_8888, true)
        else Bitmap.createBitmap(image.width, image.height, Bitmap.Config.ARGB_8888)
        found.draw?.invoke(Canvas(picture))
        return picture
    }

    override fun onDestroy() {
        super.onDestroy()
        worker.execute { network.close() }
        worker.shutdown()
    }
}
